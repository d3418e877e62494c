// SPDX-License-Identifier: Apache-2.0
// When targets are checked, what is made of that, and who hears of it; real sockets on loopback.
#include "controlplane/health/health_checker.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/health/checker_bench.hpp"

namespace sluice::health {
namespace {

TEST(health_checker, rise_and_fall_count_exactly) {
  http_server server{local, answer(200)};
  std::deque<std::string> script;
  // check number:          1    2    3    4    5    6    7    8    9   10   11
  for (const int status : {200, 503, 503, 200, 503, 503, 503, 200, 503, 200, 200})
    script.push_back(answer(status));
  server.script(std::move(script));
  bench b;
  b.set({http(local, server.port(), 20ms, 500ms, 2, 3)});
  ASSERT_TRUE(b.until(3));
  const auto& v = b.verdicts;
  EXPECT_TRUE(v[0].up && v[0].checks == 1);
  EXPECT_TRUE(!v[1].up && v[1].checks == 7) << v[1].checks;
  EXPECT_EQ(v[1].reason, "HTTP 503");
  EXPECT_TRUE(v[2].up && v[2].checks == 11) << v[2].checks;
}

TEST(health_checker, is_down_within_interval_times_fall_plus_timeout) {
  http_server server{local, answer(200)};
  bench b;
  b.set({http(local, server.port(), 100ms, 60ms, 2, 3)});
  ASSERT_TRUE(b.until(1));
  b.loop.run_for(330ms);
  const auto silent_since = clock::now();
  server.set("", manner::silent);
  ASSERT_TRUE(b.until(2));
  const auto took = b.verdicts[1].at - silent_since;
  std::printf("silent backend, interval 100 ms, fall 3, timeout 60 ms: down after %lld ms\n",
              static_cast<long long>(std::chrono::duration_cast<milliseconds>(took).count()));
  EXPECT_FALSE(b.verdicts[1].up);
  EXPECT_LE(took, 3 * 100ms + 60ms + 30ms);  // the last: a busy machine
}

TEST(health_checker, a_doubt_is_settled_at_the_fast_interval) {
  http_server server{local, answer(200)};
  checker_options options;
  options.fast_interval = 20ms;
  bench b{options};
  const target t = http(local, server.port(), 400ms, 100ms, 2, 3);
  b.set({t});
  ASSERT_TRUE(b.until(1));
  server.set(answer(503));
  ASSERT_TRUE(b.until(2));
  EXPECT_LE(b.verdicts[1].at - b.verdicts[0].at, 400ms + 2 * 20ms + 100ms);
  const auto checks = b.status(t).checks;
  b.loop.run_for(200ms);  // no doubt, no hurry
  EXPECT_LE(b.status(t).checks - checks, 1U);
}

TEST(health_checker, a_target_has_a_fast_interval_of_its_own) {
  http_server server{local, answer(200)};
  bench b;
  target t = http(local, server.port(), 400ms, 100ms, 2, 3);
  t.check.fast_interval = 20ms;
  b.set({t});
  ASSERT_TRUE(b.until(1));
  server.set(answer(503));
  ASSERT_TRUE(b.until(2));
  EXPECT_LE(b.verdicts[1].at - b.verdicts[0].at, 400ms + 2 * 20ms + 100ms);
}

TEST(health_checker, jitter_moves_probes_towards_earlier_only) {
  const listener server{local};
  std::vector<clock::time_point> starts;
  checker_options options;
  options.make_socket = [&](const target& t) {
    starts.push_back(clock::now());
    return make_plain_socket(t);
  };
  bench b{options};
  target t = tcp(local, server.port(), 40ms);
  t.check.jitter = 50;
  b.set({t});
  b.loop.run_for(1200ms);
  // 30 without; 40 are due.
  EXPECT_GE(starts.size(), 33U);
  EXPECT_LE(starts.size(), 61U);
  clock::duration shortest = 1s;
  for (std::size_t i = 3; i < starts.size(); ++i)
    shortest = std::min(shortest, starts[i] - starts[i - 1]);
  EXPECT_LT(shortest, 34ms);
}

TEST(health_checker, a_probe_comes_from_the_source_that_it_was_given) {
  const listener server{local};
  target t = tcp(local, server.port());
  t.check.source = address("127.3.2.1");
  const auto made = make_plain_socket(t);
  ASSERT_TRUE(made);
  sockaddr_in self{};
  socklen_t length = sizeof self;
  ASSERT_EQ(::getsockname(*made, reinterpret_cast<sockaddr*>(&self), &length), 0);
  EXPECT_EQ(self.sin_addr.s_addr, t.check.source->v4_raw().raw());
  ::close(*made);
  EXPECT_TRUE(first_verdict(t).up);
  t.check.source = address("192.0.2.77");
  const told v = first_verdict(t);
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "the check's source address is not one of this host's");
}

TEST(health_checker, a_new_target_is_probed_within_200_ms) {
  std::vector<target> targets;
  std::vector<listener> servers;
  for (int i = 1; i <= 20; ++i) {
    servers.emplace_back(address(("127.0.4." + std::to_string(i)).c_str()));
    targets.push_back(tcp(address(("127.0.4." + std::to_string(i)).c_str()), servers.back().port(),
                          30000ms, 1000ms));
  }
  bench b;
  const auto begin = clock::now();
  b.set(targets);
  ASSERT_TRUE(b.until(targets.size()));
  EXPECT_LE(clock::now() - begin, 250ms);
  // And not all at once.
  EXPECT_GE(b.verdicts.back().at - b.verdicts.front().at, 50ms);
}

TEST(health_checker, a_reload_changes_nothing_for_what_stays) {
  const listener server{local};
  bench b;
  const target t = tcp(local, server.port(), 100ms);
  b.set({t});
  ASSERT_TRUE(b.until(1));
  for (int i = 0; i < 50; ++i) {
    b.set({t, t, tcp(local, static_cast<std::uint16_t>(1 + i), 60000ms)});
    b.loop.run_for(10ms);
  }
  const target_status s = b.status(t);
  EXPECT_EQ(s.state, health_state::up);
  // 500 ms at one probe each 100 ms, wherever the first fell.
  EXPECT_GE(s.checks, 5U);
  EXPECT_LE(s.checks, 9U);
  int told_of_t = 0;
  for (const told& v : b.verdicts) told_of_t += v.what == t ? 1 : 0;
  EXPECT_EQ(told_of_t, 1);
}

TEST(health_checker, a_changed_check_takes_over_the_state) {
  listener server{local};
  bench b;
  b.set({tcp(local, server.port(), 50ms)});
  ASSERT_TRUE(b.until(1));
  server.close();
  const target changed = http(local, server.port(), 60ms, 60ms, 2, 2);
  b.set({changed});
  EXPECT_EQ(b.checker.state_of(changed), health_state::up);
  ASSERT_TRUE(b.until(2));
  EXPECT_FALSE(b.verdicts[1].up);
  EXPECT_EQ(b.verdicts[1].checks, 2U);  // by the fall rule, not at the first failure
}

TEST(health_checker, a_second_check_of_a_backend_starts_unknown) {
  const listener server{local};
  bench b;
  const target first = tcp(local, server.port());
  b.set({first});
  ASSERT_TRUE(b.until(1));
  const target second = http(local, server.port());
  b.set({first, second});
  EXPECT_EQ(b.checker.state_of(second), health_state::unknown);
}

TEST(health_checker, equal_targets_share_one_probe) {
  http_server server{local, answer(200)};
  target a = http(local, server.port(), 10000ms);
  target b_same = a;
  b_same.check.port = server.port();  // said explicitly by another service
  bench b;
  b.set({a, b_same, a});
  b.loop.run_for(300ms);
  EXPECT_EQ(b.checker.snapshot().size(), 1U);
  EXPECT_EQ(b.verdicts.size(), 1U);
  EXPECT_EQ(server.requests().size(), 1U);
  EXPECT_EQ(target_hash{}(a), target_hash{}(b_same));
  EXPECT_EQ(make_target(local, 443, b_same.check).port, server.port());
  EXPECT_EQ(make_target(local, 443, a.check).port, 443);
}

TEST(health_checker, kind_none_is_left_out) {
  bench b;
  target t = tcp(local, 1);
  t.check.kind = model::health_kind::none;
  b.set({t});
  EXPECT_TRUE(b.checker.snapshot().empty());
}

TEST(health_checker, a_seed_is_kept_until_the_rule_says_otherwise) {
  listener server{local};
  {
    bench b;
    const target t = tcp(local, server.port(), 20ms);
    b.set({t}, health_state::up);
    EXPECT_EQ(b.checker.state_of(t), health_state::up);
    EXPECT_FALSE(b.status(t).confirmed);
    ASSERT_TRUE(b.until(1));
    EXPECT_TRUE(b.verdicts[0].up && b.verdicts[0].checks == 1);
    EXPECT_TRUE(b.status(t).confirmed);
  }
  {
    bench b;
    b.set({tcp(local, server.port(), 20ms, 500ms, 4, 3)}, health_state::down);
    ASSERT_TRUE(b.until(1));
    EXPECT_TRUE(b.verdicts[0].up && b.verdicts[0].checks == 4);
  }
  server.close();
  bench b;
  b.set({tcp(local, server.port(), 20ms, 20ms, 2, 5)}, health_state::up);
  ASSERT_TRUE(b.until(1));
  EXPECT_TRUE(!b.verdicts[0].up && b.verdicts[0].checks == 5);
}

TEST(health_checker, removed_targets_are_not_heard_of_again) {
  http_server server{local, "", manner::silent};
  bench b;
  b.set({http(local, server.port(), 100ms, 100ms)});
  while (b.checker.counters().in_flight == 0) b.loop.run_for(5ms);
  b.set({});
  EXPECT_EQ(b.checker.counters().in_flight, 0U);
  b.loop.run_for(200ms);
  EXPECT_TRUE(b.verdicts.empty());
  EXPECT_EQ(b.loop.timers(), 0U);
}

TEST(health_checker, probe_now_does_not_wait_for_the_interval) {
  listener server{local};
  bench b;
  const target t = tcp(local, server.port(), 60000ms, 100ms, 2, 1);
  b.set({t});
  ASSERT_TRUE(b.until(1));
  server.close();
  EXPECT_TRUE(b.checker.probe_now(t));
  ASSERT_TRUE(b.until(2, 100ms));
  EXPECT_FALSE(b.verdicts[1].up);
  EXPECT_FALSE(b.checker.probe_now(tcp(local, 1)));
}

TEST(health_checker, the_callback_may_replace_the_targets) {
  event_loop loop;
  int verdicts = 0;
  health_checker* self = nullptr;
  health_checker checker{loop, [&](const target& t, const verdict&) {
                           ++verdicts;
                           self->set_targets({{tcp(t.address, t.port, 10ms, 10ms, 2, 3)}});
                           self->set_targets({});
                           self->set_targets({{http(t.address, t.port)}});
                         }};
  self = &checker;
  checker.set_targets({{tcp(local, 1, 20ms)}, {tcp(local, 2, 20ms)}});
  loop.run_for(300ms);
  EXPECT_GE(verdicts, 1);
  EXPECT_EQ(checker.snapshot().size(), 1U);
}

TEST(health_checker, a_lack_of_descriptors_delays_and_does_not_condemn) {
  const listener server{local};
  bool lacking = true;
  int asked = 0;
  checker_options options;
  options.make_socket = [&](const target& t) -> tl::expected<int, std::error_code> {
    ++asked;
    if (lacking) return tl::unexpected(std::make_error_code(std::errc::too_many_files_open));
    return make_plain_socket(t);
  };
  bench b{options};
  std::vector<target> targets;
  for (int i = 1; i <= 100; ++i)
    targets.push_back(tcp(address(("127.0.5." + std::to_string(i)).c_str()), 1, 20ms, 20ms));
  const target t = tcp(local, server.port(), 20ms, 20ms);
  targets.push_back(t);
  b.set(targets);
  b.loop.run_for(500ms);
  EXPECT_TRUE(b.verdicts.empty());
  EXPECT_LE(asked, 12);  // one try each 50 ms, not one per target or turn
  EXPECT_GE(b.checker.counters().deferred, 1U);
  EXPECT_EQ(b.checker.counters().started, 0U);
  lacking = false;
  ASSERT_TRUE(b.until(targets.size()));
  EXPECT_EQ(b.checker.state_of(t), health_state::up);
}

TEST(health_checker, no_more_sockets_than_allowed) {
  http_server server{local, "", manner::silent};
  checker_options options;
  options.max_in_flight = 3;
  bench b{options};
  std::vector<target> targets;
  for (int i = 0; i < 12; ++i) {
    targets.push_back(http(local, server.port(), 1000ms, 30ms));
    targets.back().check.path += std::to_string(i);
  }
  b.set(targets);
  std::size_t most = 0;
  while (b.verdicts.size() < targets.size() && b.loop.wakeups() < 5000) {
    b.loop.run_for(2ms);
    most = std::max(most, b.checker.counters().in_flight);
  }
  EXPECT_EQ(b.verdicts.size(), targets.size());  // everyone had a turn
  EXPECT_EQ(most, 3U);
}

TEST(health_checker, the_socket_is_the_callers_to_make) {
  checker_options options;
  options.make_socket = [](const target&) -> tl::expected<int, std::error_code> {
    return tl::unexpected(std::make_error_code(std::errc::no_such_device));
  };
  bench b{options};
  b.set({tcp(local, 1)});
  ASSERT_TRUE(b.until(1));
  EXPECT_EQ(b.verdicts[0].reason, "no such device");
}

TEST(health_checker, the_caller_says_where_to_connect) {
  const listener server{local};
  checker_options options;
  options.make_socket = [&](const target& t) -> tl::expected<probe_socket, std::error_code> {
    auto fd = make_plain_socket(t);
    if (!fd) return tl::unexpected(fd.error());
    probe_socket made{*fd};
    made.to = local;
    return made;
  };
  bench b{options};
  // Nobody listens at the target's own address.
  const target t = tcp(address("127.0.5.1"), server.port(), 20ms, 20ms);
  b.set({t});
  ASSERT_TRUE(b.until(1));
  EXPECT_EQ(b.checker.state_of(t), health_state::up);
}

TEST(health_checker, each_vip_of_a_backend_is_a_target_of_its_own) {
  const target direct = tcp(local, 80);
  const auto by_path = [&](const char* vip, model::forward_mode mode, std::uint8_t dscp = 0) {
    return make_target(local, 80, direct.check, data_path{address(vip), mode, dscp});
  };
  using enum model::forward_mode;
  const std::vector<target> all{direct,
                                by_path("192.0.2.1", ipip),
                                by_path("192.0.2.2", ipip),
                                by_path("192.0.2.1", gue),
                                by_path("192.0.2.1", dsr_dscp, 1),
                                by_path("192.0.2.1", dsr_dscp, 2)};
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < all.size(); ++j) {
      EXPECT_EQ(all[i] == all[j], i == j) << i << ' ' << j;
      EXPECT_EQ(target_hash{}(all[i]) == target_hash{}(all[j]), i == j) << i << ' ' << j;
    }
  // What is asked of `via` makes no difference to a direct probe.
  target other = direct;
  other.check.via = model::health_via::direct;
  EXPECT_EQ(other, direct);
  EXPECT_EQ(target_hash{}(other), target_hash{}(direct));
}

TEST(health_checker, a_changed_way_keeps_the_state_but_not_another_vips) {
  const listener server{local};
  checker_options options;
  options.make_socket = make_plain_socket;
  bench b{options};
  const target direct = tcp(local, server.port(), 20ms, 20ms);
  b.set({direct});
  ASSERT_TRUE(b.until(1));
  const auto by_path = [&](const char* vip) {
    return make_target(local, server.port(), direct.check,
                       data_path{address(vip), model::forward_mode::ipip, 0});
  };
  const target first = by_path("192.0.2.1");
  const target second = by_path("192.0.2.2");
  b.set({first});
  EXPECT_EQ(b.checker.state_of(first), health_state::up);
  b.set({second});
  EXPECT_EQ(b.checker.state_of(second), health_state::unknown);
}

TEST(health_checker, thousands_that_fail_at_once_are_no_recursion) {
  // All wait behind one silent target; when it gives up, the queue runs through in one go.
  http_server server{local, "", manner::silent};
  constexpr int count = 10000;
  checker_options options;
  options.max_in_flight = 1;
  event_loop loop;
  int down = 0;
  health_checker checker{loop,
                         [&](const target&, const verdict& v) {
                           if (!v.up && ++down == count + 1) loop.stop();
                         },
                         options};
  std::vector<wanted_target> targets{{http(local, server.port(), 60000ms, 300ms)}};
  for (int i = 1; i <= count; ++i) {
    targets.push_back({http(local, static_cast<std::uint16_t>(i), 60000ms)});
    targets.back().target.check.path = "bad";
  }
  checker.set_targets(targets);
  for (const wanted_target& t : targets) EXPECT_TRUE(checker.probe_now(t.target));
  EXPECT_EQ(checker.counters().waiting, static_cast<std::size_t>(count));
  loop.run_for(2s);
  EXPECT_EQ(down, count + 1);
}

}  // namespace
}  // namespace sluice::health
