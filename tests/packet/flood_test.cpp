// SPDX-License-Identifier: Apache-2.0
// SYN floods: what syn_flood_rate does, and a thousand connections beside ten times as many
// spoofed SYNs as the table has places.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "tests/packet/options_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;
using abi::connection_state;

bytes spoofed(unsigned n) {
  return ethernet(
      0x0800,
      ip4({.source = {static_cast<std::uint8_t>(11 + (n >> 24)), static_cast<std::uint8_t>(n >> 16),
                      static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)}},
          tcp({2000 + n % 251, 443, syn})));
}

TEST(syn_meter, turns_on_at_once_and_off_after_a_calm_second) {
  syn_meter m;
  std::uint64_t now = 77 * second;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(m.flooded(100, now));
  EXPECT_TRUE(m.flooded(100, now));
  // 60 a second: below the rate, above half of it. It stays on.
  for (int s = 0; s < 10; ++s)
    for (int i = 0; i < 60; ++i) EXPECT_TRUE(m.flooded(100, now += second / 60));
  // 40 a second: off after a second.
  unsigned on = 0;
  for (int i = 0; i < 120; ++i) on += m.flooded(100, now += second / 40);
  EXPECT_LE(on, 101u);
  EXPECT_GE(on, 40u);
  EXPECT_FALSE(m.flooded(100, now));
  // Silence is calm as well.
  for (int i = 0; i < 101; ++i) (void)m.flooded(100, now);
  EXPECT_TRUE(m.flooded(100, now));
  EXPECT_FALSE(m.flooded(100, now + 5 * second));
  EXPECT_FALSE(m.flooded(0, now + 5 * second));
}

// Below the rate as ever; above, no entries; and a handshake that is finished gets one, at the
// backend that its SYN went to, whatever the scheduler.
TEST_F(options, syn_flood_takes_no_entries) {
  ask([](abi::service_options& o) { o.syn_flood_rate = 100; });
  for (const auto kind :
       {abi::scheduler::maglev, abi::scheduler::round_robin, abi::scheduler::least_connections}) {
    tables.service(0).kind = kind;
    bench b{view()};
    for (unsigned n = 0; n < 1000; ++n) b.run(spoofed(n));
    EXPECT_EQ(b.table().v4.size(), 100u);
    EXPECT_EQ(b.count(syn_flood_stateless), 900u);
    EXPECT_EQ(b.count(forwarded), 1000u);
    for (unsigned n = 0; n < 200; ++n) {
      const auto at = b.run(packet_of(n, syn)).backend;
      EXPECT_EQ(b.run(packet_of(n, syn)).backend, at) << "retransmitted";
      EXPECT_EQ(b.run(packet_of(n, ack)).backend, at);
      EXPECT_EQ(b.run(packet_of(n, ack)).backend, at);
    }
    EXPECT_EQ(b.table().v4.size(connection_state::established), 200u);
    EXPECT_EQ(b.table().v4.size(), 300u);
    // A service beside it is not in flood mode.
    b.run(packet_of(0, syn, 80));
    EXPECT_EQ(b.table().v4.size(), 301u);
    // Calm again.
    b.now_ns += 3 * second;
    b.run(spoofed(5000));
    EXPECT_EQ(b.table().v4.size(), 302u);
  }
}

// flood() opens connections, floods a table of 8192 places with ten times as many SYNs, takes a
// backend out in the middle, and tells how many connections came to another backend than
// they had.
struct losses {
  unsigned established, opened_meanwhile;
};
class floods : public options {
 protected:
  losses flood(bench& b) {
    std::map<unsigned, abi::backend_ref> where;
    for (unsigned n = 0; n < 1000; ++n) {
      b.run(packet_of(n, syn));
      where[n] = b.run(packet_of(n, ack)).backend;
      if (n % 50 == 49) b.now_ns += second;
    }
    const std::uint64_t places = b.table().v4.capacity();
    std::map<unsigned, abi::backend_ref> later;
    std::uint64_t lost = 0;
    for (unsigned n = 0; n < 10 * places;) {
      std::vector<input> burst;
      for (int k = 0; k < 200; ++k) burst.push_back({spoofed(n++)});
      for (const result& r : b.run(burst)) lost += r.outcome != verdict::forward;
      b.now_ns += second / 500;  // 100000 a second
      // Clients go on, and others come.
      const unsigned c = n / 200;
      b.run(packet_of(c % 1000, ack));
      if (c >= 200 && c < 400) {
        b.run(packet_of(10'000 + c, syn));
        later[10'000 + c] = b.run(packet_of(10'000 + c, ack)).backend;
        EXPECT_EQ(b.run(packet_of(10'000 + c, ack)).backend, later[10'000 + c]);
      }
      if (c == 500) {  // member 3 leaves the table, and goes
        set_table(0, {0, 1, 2});
        tables.service(0).member_count = 3;
        b.path().set_view(view());
      }
    }
    EXPECT_EQ(lost, 0u);
    losses l{};
    for (const auto& [n, at] : where)
      if (at.index() != 3) l.established += b.run(packet_of(n, ack)).backend != at;
    for (const auto& [n, at] : where)  // drained, not down: it keeps what it has
      if (at.index() == 3) l.established += b.run(packet_of(n, ack)).backend != at;
    for (const auto& [n, at] : later) l.opened_meanwhile += b.run(packet_of(n, ack)).backend != at;
    EXPECT_EQ(b.count(connections_moved), 0u);
    std::printf(
        "table of %llu places, %llu SYNs, 1000 connections before, %zu in the middle: %u and %u "
        "changed their backend; %llu SYNs without entry, %llu entries evicted\n",
        static_cast<unsigned long long>(places), static_cast<unsigned long long>(10 * places),
        later.size(), l.established, l.opened_meanwhile,
        static_cast<unsigned long long>(b.count(syn_flood_stateless)),
        static_cast<unsigned long long>(b.count(connections_evicted)));
    return l;
  }
};

TEST_F(floods, break_no_connection) {
  ask([](abi::service_options& o) { o.syn_flood_rate = 1000; });
  bench b{view(), 3250};
  const losses l = flood(b);
  EXPECT_EQ(l.established, 0u);
  EXPECT_EQ(l.opened_meanwhile, 0u);
  EXPECT_GT(b.count(syn_flood_stateless), 10 * b.table().v4.capacity() * 8 / 10);
  EXPECT_LT(b.count(connections_evicted), 100u);
}

// Without the mode, the order of giving way protects what is established, too.
TEST_F(floods, break_no_established_connection_without_the_mode) {
  bench b{view(), 3250};
  EXPECT_EQ(flood(b).established, 0u);
}

}  // namespace
}  // namespace sluice::test
