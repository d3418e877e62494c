// SPDX-License-Identifier: Apache-2.0
// Checks by datagrams: udp, dns, and ICMP echo.
#include <gtest/gtest.h>
#include <net/if.h>
#include <unistd.h>

#include "controlplane/health/dns_check.hpp"
#include "controlplane/health/icmp_echo.hpp"
#include "tests/unit/health/one_check.hpp"

namespace sluice::health {
namespace {

using namespace std::chrono_literals;
using model::health_kind;
using test::datagram_server;
using test::one_check;
using test::target_of;

TEST(health_udp, an_answer_is_what_was_expected) {
  for (const char* at : {"127.0.0.1", "::1"}) {
    SCOPED_TRACE(at);
    one_check one;
    datagram_server server{one.loop, [](std::string_view) { return std::string{"PONG 7"}; }, at};
    target t = target_of(health_kind::udp, server.port(), at);
    t.check.send = std::string{"\x01\0PING", 6};
    verdict v = one.first(t);
    EXPECT_TRUE(v.up);
    EXPECT_EQ(v.reason, "answered");
    EXPECT_EQ(server.last, t.check.send);
    t.check.answer = model::health_answer::text;
    t.check.receive = "NG 7";
    EXPECT_TRUE(one.first(t).up);
    t.check.receive = "PING";
    v = one.first(t);
    EXPECT_FALSE(v.up);
    EXPECT_EQ(v.reason, "the answer does not contain what is expected");
  }
}

TEST(health_udp, an_icmp_error_is_a_failure_at_once_and_silence_one_in_time) {
  one_check one;
  std::uint16_t port;
  {
    datagram_server server{one.loop, [](std::string_view) { return std::string{}; }};
    port = server.port();
    target t = target_of(health_kind::udp, port);
    t.check.timeout = 100ms;
    verdict v = one.first(t);
    EXPECT_FALSE(v.up);
    EXPECT_EQ(v.reason, "timeout after 100 ms waiting for an answer");
    t.check.answer = model::health_answer::none;
    v = one.first(t);
    EXPECT_TRUE(v.up);
    EXPECT_EQ(v.reason, "not refused");
  }
  for (const auto answer : {model::health_answer::any, model::health_answer::none}) {
    target t = target_of(health_kind::udp, port);
    t.check.answer = answer;
    const verdict v = one.first(t);
    EXPECT_FALSE(v.up);
    EXPECT_EQ(v.reason, "port unreachable (ICMP)");
    EXPECT_LT(one.took, 500ms);
  }
}

std::string reply_to(std::string_view query, unsigned flags) {
  std::string out{query};
  out[2] = static_cast<char>(flags >> 8);
  out[3] = static_cast<char>(flags & 0xff);
  return out;
}

TEST(health_dns, the_code_of_the_reply_counts) {
  struct row {
    unsigned flags;
    bool up;
    const char* reason;
  };
  for (const row& r : {row{0x8180, true, "DNS NOERROR"}, row{0x8400, true, "DNS NOERROR"},
                       row{0x8182, false, "DNS SERVFAIL"}, row{0x8183, false, "DNS NXDOMAIN"},
                       row{0x8185, false, "DNS REFUSED"}, row{0x818e, false, "DNS code 14"}}) {
    SCOPED_TRACE(r.flags);
    one_check one;
    datagram_server server{one.loop, [&](std::string_view q) { return reply_to(q, r.flags); }};
    target t = target_of(health_kind::dns, server.port());
    t.check.name = "www.Example.net";
    t.check.record = 28;
    const verdict v = one.first(t);
    EXPECT_EQ(v.up, r.up);
    EXPECT_EQ(v.reason, r.reason);
    EXPECT_EQ(server.last.substr(2), std::string("\x01\0\0\1\0\0\0\0\0\0\3www\7Example\3net\0"
                                                 "\0\x1c\0\1",
                                                 31));
  }
}

TEST(health_dns, what_is_no_reply_is_passed_over) {
  one_check one;
  datagram_server server{one.loop, [&](std::string_view q) {
                           std::string other = reply_to(q, 0x8180);
                           other[0] = static_cast<char>(other[0] ^ 1);
                           return other;
                         }};
  target t = target_of(health_kind::dns, server.port());
  t.check.timeout = 100ms;
  EXPECT_EQ(one.first(t).reason, "timeout after 100 ms waiting for an answer");

  const std::string query = dns_query(7, "a.b", 1);
  EXPECT_TRUE(judge_dns_reply(reply_to(query, 0x8180), 7, "A.b", 1).ours);
  EXPECT_FALSE(judge_dns_reply(reply_to(query, 0x8180), 8, "a.b", 1).ours);
  EXPECT_FALSE(judge_dns_reply(reply_to(query, 0x8180), 7, "a.c", 1).ours);
  EXPECT_FALSE(judge_dns_reply(reply_to(query, 0x8180), 7, "a.b", 28).ours);
  EXPECT_FALSE(judge_dns_reply(query, 7, "a.b", 1).ours) << "a query";
  for (std::size_t n = 0; n < query.size(); ++n)
    EXPECT_FALSE(judge_dns_reply(reply_to(query, 0x8180).substr(0, n), 7, "a.b", 1).ours) << n;
  // A header alone: what a server sends that could not read the query.
  std::string header = reply_to(query, 0x8181).substr(0, 12);
  header[5] = 0;
  EXPECT_EQ(judge_dns_reply(header, 7, "a.b", 1).text, "DNS FORMERR");
  EXPECT_EQ(dns_query(7, "", 2).size(), 12U + 5);
  for (const std::string& bad : {std::string{"a..b"}, std::string{".a"}, std::string{"a."},
                                 std::string(64, 'a'), std::string(300, 'a')})
    EXPECT_TRUE(dns_query(7, bad, 1).empty()) << bad;
}

TEST(health_icmp, echo) {
  for (const char* at : {"127.0.0.1", "127.4.5.6", "::1"}) {
    SCOPED_TRACE(at);
    one_check one;
    target t = target_of(health_kind::icmp, 0, at);
    verdict v = one.first(t);
    if (v.reason.starts_with("ICMP needs")) GTEST_SKIP() << v.reason;
    EXPECT_TRUE(v.up) << v.reason;
    EXPECT_EQ(v.reason, "echo reply");
    t.check.source = test::address(t.address.is_v4() ? "127.0.0.9" : "::1");
    v = one.first(t);
    EXPECT_TRUE(v.up) << v.reason;
  }
  one_check one;
  target t = target_of(health_kind::icmp, 0);
  t.check.source = test::address("192.0.2.99");
  EXPECT_EQ(one.first(t).reason, "the check's source address is not one of this host's");
}

TEST(health_icmp, the_caller_says_which_way) {
  const std::uint32_t loopback = ::if_nametoindex("lo");
  for (const char* at : {"127.4.5.6", "::1"}) {
    SCOPED_TRACE(at);
    bool gone = false;
    checker_options options;
    options.make_socket = [&](const target&) -> tl::expected<probe_socket, std::error_code> {
      probe_socket way;
      way.to = test::address(at);
      way.scope = gone ? 1'000'000 : loopback;
      way.mark = ::geteuid() == 0 ? 0x53000001 : 0;
      return way;
    };
    event_loop loop;
    std::string told;
    health_checker checker{loop,
                           [&](const target&, const verdict& v) {
                             told = v.reason;
                             loop.stop();
                           },
                           options};
    target t = target_of(health_kind::icmp, 0, "192.0.2.99");
    t.path = data_path{test::address("192.0.2.1"), model::forward_mode::ipip, 0};
    checker.set_targets({{t, health_state::unknown}});
    loop.run_for(2s);
    if (told.starts_with("ICMP needs")) GTEST_SKIP() << told;
    EXPECT_EQ(told, "echo reply");
    // An interface of ours that is gone is nothing to hold against the target.
    gone = true;
    told.clear();
    t.check.rise = 7;
    t.path->vip = test::address("192.0.2.2");
    checker.set_targets({{t, health_state::unknown}});
    loop.run_for(400ms);
    EXPECT_EQ(told, "");
    EXPECT_GE(checker.counters().deferred, 1U);
  }
}

TEST(health_icmp, many_share_a_socket) {
  event_loop loop;
  int up = 0;
  health_checker checker{loop, [&](const target&, const verdict& v) {
                           if (v.reason.starts_with("ICMP needs")) up = -1, loop.stop();
                           if (v.up && ++up == 2000) loop.stop();
                         }};
  std::vector<wanted_target> all;
  for (int i = 0; i < 2000; ++i) {
    target t = target_of(health_kind::icmp, 0);
    t.address =
        ip_address::v4({127, 5, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)});
    all.push_back({t, health_state::unknown});
  }
  checker.set_targets(all);
  loop.run_for(3s);
  if (up < 0) GTEST_SKIP() << "no ICMP sockets here";
  EXPECT_EQ(up, 2000);
  EXPECT_EQ(checker.counters().failed, 0U);
}

std::string ipv4_of(std::string_view icmp, const char* to) {
  std::string out(20, '\0');
  out[0] = 0x45;
  out[9] = 1;
  const ip_address a = test::address(to);
  for (std::size_t i = 0; i < 4; ++i) out[16 + i] = static_cast<char>(a.bytes[12 + i]);
  return out.append(icmp);
}

TEST(health_icmp, messages_are_read_strictly) {
  const std::string request = echo_request(true, {0x1234, 7}, 0x0102030405060708);
  EXPECT_FALSE(read_echo(true, request));
  std::string reply = request;
  reply[0] = 0;
  auto news = read_echo(true, reply);
  ASSERT_TRUE(news);
  EXPECT_EQ(news->id, (echo_id{0x1234, 7}));
  EXPECT_EQ(news->data, 0x0102030405060708U);
  EXPECT_TRUE(news->error.empty());
  EXPECT_TRUE(read_echo(true, ipv4_of(reply, "127.0.0.1"), true));
  EXPECT_FALSE(read_echo(true, reply, true));

  const std::string error =
      std::string{"\3\1\0\0\0\0\0\0", 8} + ipv4_of(request.substr(0, 8), "192.0.2.5");
  news = read_echo(true, ipv4_of(error, "127.0.0.1"), true);
  ASSERT_TRUE(news);
  EXPECT_EQ(news->id, (echo_id{0x1234, 7}));
  EXPECT_EQ(news->error, "host unreachable");
  EXPECT_EQ(news->quoted, test::address("192.0.2.5"));
  for (std::size_t n = 0; n < error.size(); ++n) EXPECT_FALSE(read_echo(true, error.substr(0, n)));

  const std::string request6 = echo_request(false, {0x1234, 7}, 1);
  std::string header6(40, '\0');
  header6[0] = 0x60;
  header6[6] = 58;
  const ip_address to = test::address("2001:db8::5");
  for (std::size_t i = 0; i < 16; ++i) header6[24 + i] = static_cast<char>(to.bytes[i]);
  const std::string error6 = std::string{"\1\3\0\0\0\0\0\0", 8} + header6 + request6;
  news = read_echo(false, error6);
  ASSERT_TRUE(news);
  EXPECT_EQ(news->quoted, to);
  EXPECT_EQ(news->id.sequence, 7);
}

}  // namespace
}  // namespace sluice::health
