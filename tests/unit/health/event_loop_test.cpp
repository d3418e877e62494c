// SPDX-License-Identifier: Apache-2.0
#include "controlplane/loop/event_loop.hpp"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <optional>
#include <stdexcept>

namespace sluice {
namespace {

using namespace std::chrono_literals;

double thread_cpu_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

int signalled_eventfd() {
  return ::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
}

TEST(event_loop, posts_from_other_threads_run_in_order_on_the_loop) {
  event_loop loop;
  std::vector<int> seen;
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i)
      loop.post([&, i] {
        EXPECT_TRUE(loop.in_loop_thread());
        seen.push_back(i);
      });
    EXPECT_FALSE(loop.in_loop_thread());
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  poster.join();
  ASSERT_EQ(seen.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(event_loop, invoke_returns_values_and_exceptions_to_the_caller) {
  event_loop loop;
  std::thread caller([&] {
    EXPECT_EQ(loop.invoke([&] { return loop.in_loop_thread() ? 42 : 0; }), 42);
    EXPECT_THROW(loop.invoke([]() -> int { throw std::runtime_error{"no"}; }), std::runtime_error);
    loop.stop();
  });
  loop.run();
  caller.join();
  EXPECT_EQ(loop.invoke([] { return 1; }), 1);  // ours again after run(): a plain call
}

TEST(event_loop, invoke_on_a_loop_that_goes_away_does_not_hang) {
  auto loop = std::make_unique<event_loop>();
  std::atomic<bool> calling{false};
  std::thread caller([&, raw = loop.get()] {
    calling = true;
    EXPECT_THROW(raw->invoke([] {}), std::future_error);
  });
  while (!calling) std::this_thread::yield();
  std::this_thread::sleep_for(20ms);
  loop.reset();
  caller.join();
}

TEST(event_loop, a_stop_before_run_is_not_lost) {
  event_loop loop;
  bool ran = false;
  loop.post([&] { ran = true; });
  loop.stop();
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(event_loop, an_event_already_fetched_is_not_delivered_after_remove) {
  event_loop loop;
  const std::array fds{signalled_eventfd(), signalled_eventfd()};
  int calls = 0;
  for (const std::size_t i : {0U, 1U})
    ASSERT_FALSE(loop.add_fd(fds[i], EPOLLIN, [&, i](std::uint32_t) {
      ++calls;
      loop.remove_fd(fds[1 - i]);  // both are ready in one epoll_wait
      loop.remove_fd(fds[i]);
    }));
  loop.run_for(20ms);
  EXPECT_EQ(calls, 1);
  for (const int fd : fds) ::close(fd);
}

TEST(event_loop, a_reused_descriptor_number_gets_no_event_of_its_former_life) {
  event_loop loop;
  const std::array fds{signalled_eventfd(), signalled_eventfd()};
  int fresh = -1;
  int stale_calls = 0;
  for (const std::size_t i : {0U, 1U})
    ASSERT_FALSE(loop.add_fd(fds[i], EPOLLIN, [&, i](std::uint32_t) {
      if (fresh >= 0) return;
      const int other = fds[1 - i];
      loop.remove_fd(other);
      ::close(other);
      fresh = ::eventfd(0, EFD_NONBLOCK);  // the lowest free number: that of `other`
      EXPECT_EQ(fresh, other);
      ASSERT_FALSE(loop.add_fd(fresh, EPOLLIN, [&](std::uint32_t) { ++stale_calls; }));
      loop.remove_fd(fds[i]);
    }));
  loop.run_for(20ms);
  EXPECT_EQ(stale_calls, 0);
  for (const int fd : fds) ::close(fd);
}

TEST(event_loop, refuses_bad_and_double_descriptors) {
  event_loop loop;
  EXPECT_EQ(loop.add_fd(-1, EPOLLIN, {}), std::errc::bad_file_descriptor);
  EXPECT_EQ(loop.modify_fd(12345, EPOLLIN), std::errc::bad_file_descriptor);
  loop.remove_fd(12345);
  const int fd = signalled_eventfd();
  EXPECT_FALSE(loop.add_fd(fd, EPOLLIN, [](std::uint32_t) {}));
  EXPECT_EQ(loop.add_fd(fd, EPOLLIN, {}), std::errc::file_exists);
  loop.remove_fd(fd);
  ::close(fd);
}

TEST(event_loop, modify_changes_what_is_waited_for) {
  event_loop loop;
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.data()), 0);
  std::vector<std::uint32_t> seen;
  ASSERT_FALSE(loop.add_fd(pair[0], EPOLLIN, [&](std::uint32_t events) {
    seen.push_back(events);
    loop.remove_fd(pair[0]);
  }));
  loop.call_after(5ms, [&] {
    EXPECT_TRUE(seen.empty());
    EXPECT_FALSE(loop.modify_fd(pair[0], EPOLLOUT));
  });
  loop.run_for(20ms);
  EXPECT_EQ(seen, std::vector<std::uint32_t>{EPOLLOUT});
  for (const int fd : pair) ::close(fd);
}

TEST(event_loop, a_throwing_callback_loses_nothing_behind_it) {
  event_loop loop;
  std::vector<int> seen;
  loop.post([&] { seen.push_back(1); });
  loop.post([] { throw std::runtime_error{"callback"}; });
  loop.post([&] { seen.push_back(2); });
  EXPECT_THROW(loop.run(), std::runtime_error);
  loop.post([&] { seen.push_back(3); });
  loop.stop();
  loop.run();
  EXPECT_EQ(seen, (std::vector{1, 2, 3}));
}

TEST(event_loop, a_timer_that_renews_itself_for_now_starves_nobody) {
  event_loop loop;
  int turns = 0;
  std::function<void()> again = [&] {
    ++turns;
    loop.call_at(event_loop::now() - 1s, again);
  };
  again();
  loop.call_after(5ms, [&] { loop.stop(); });
  const auto begin = event_loop::now();
  loop.run();
  EXPECT_GT(turns, 1);
  EXPECT_LT(event_loop::now() - begin, 500ms);
}

TEST(event_loop, ten_thousand_timers_fire_on_time_and_cheaply) {
  event_loop loop;
  constexpr int count = 10000;
  int fired = 0;
  int early = 0;
  auto latest = event_loop::duration::zero();
  const auto begin = event_loop::now();
  for (int i = 0; i < count; ++i) {
    const auto due = begin + 100ms + std::chrono::microseconds{i * 50};
    loop.call_at(due, [&, due] {
      const auto late = event_loop::now() - due;
      early += late < event_loop::duration::zero() ? 1 : 0;
      latest = std::max(latest, late);
      if (++fired == count) loop.stop();
    });
    // As many that are cancelled: the other half of what health checks do.
    loop.cancel(loop.call_at(due + 1s, [] { FAIL(); }));
  }
  const double cpu = thread_cpu_ms();
  loop.run();
  std::printf("10000 timers over 500 ms: %.1f ms CPU, %llu wakeups, latest by %.2f ms\n",
              thread_cpu_ms() - cpu, static_cast<unsigned long long>(loop.wakeups()),
              std::chrono::duration<double, std::milli>(latest).count());
  EXPECT_EQ(early, 0);
  EXPECT_EQ(loop.timers(), 0U);
  EXPECT_LT(loop.wakeups(), 700U);  // one per tick, not one per timer
}

TEST(event_loop, sleeps_when_there_is_nothing_to_do) {
  event_loop loop;
  loop.cancel(loop.call_after(10ms, [] { FAIL(); }));
  loop.run_for(100ms);
  EXPECT_LE(loop.wakeups(), 4U);
}

}  // namespace
}  // namespace sluice
