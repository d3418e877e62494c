// SPDX-License-Identifier: Apache-2.0
// The path and its connections over time: what is tracked, what is moved, what is
// counted, and what damaged or changing tables do.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "dataplane/abi/flow_hash.h"
#include "tests/packet/bench.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;
using abi::connection_state;

constexpr std::uint8_t all_flags =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
constexpr std::uint64_t second = 1'000'000'000;
constexpr unsigned syn = 0x02;
constexpr unsigned ack = 0x10;
constexpr unsigned fin_ack = 0x11;
constexpr unsigned rst = 0x04;

// Service 0: 198.51.100.10 tcp 443, ipip; service 1: udp 53, dsr-l2; service 2: tcp 80,
// dsr-l2 over IPv6. Backends 0-3, 4-5, 6-7.
class connections : public ::testing::Test {
 protected:
  connections() {
    tables.header().source4 = {ip_address::v4({192, 0, 2, 10}), 32, 1, {}};
    tables.header().source6 = {ip_address::v6({0x20, 1, 0xd, 0xb8}), 128, 1, {}};
    const auto some = [](unsigned first, unsigned n) {
      std::vector<table_builder::backend_spec> b;
      for (unsigned i = first; i < first + n; ++i) {
        const auto last = static_cast<std::uint8_t>(i);
        b.push_back(
            {ip_address::v4({10, 0, 0, last}), {2, 0, 0, 0, 0xb, last}, 0, 1500, all_flags});
      }
      return b;
    };
    const ip_address vip = ip_address::v4({198, 51, 100, 10});
    tables.add_service(vip, ip_proto::tcp, 443, 443, abi::forward_mode::ipip, some(0, 4));
    tables.add_service(vip, ip_proto::udp, 53, 53, abi::forward_mode::dsr_l2, some(4, 2));
    tables.add_service(ip_address::v6(vip6), ip_proto::tcp, 80, 80, abi::forward_mode::dsr_l2,
                       some(6, 2));
  }
  static bytes packet4(unsigned source, unsigned flags, unsigned port = 443) {
    return ethernet(0x0800, ip4({}, tcp({source, port, flags})));
  }
  static bytes packet6(unsigned source, unsigned flags) {
    return ethernet(0x86dd, ip6({}, tcp({source, 80, flags})));
  }
  static bytes datagram(unsigned source) {
    return ethernet(0x0800, ip4({.protocol = 17}, udp({source})));
  }
  static connection_state only_state(bench& b) {
    connection_state s = connection_state::free;
    b.table().v4.for_each([&](auto, abi::connection_word w) { s = w.state(); });
    b.table().v6.for_each([&](auto, abi::connection_word w) { s = w.state(); });
    return s;
  }
  // leave_table() gives all of a service's slots to one backend: what is not tracked goes
  // there from now on.
  void leave_table(std::uint32_t service, std::uint16_t member) {
    const abi::service_row& s = tables.service(service);
    for (std::uint32_t i = 0; i < s.table_size; ++i) tables.set_slot(s, i, member);
  }
  table_builder tables;
};

TEST_F(connections, tcp_states_follow_the_flags) {
  const auto after = [&](std::initializer_list<unsigned> flags) {
    bench b{tables.view()};
    for (const unsigned f : flags) EXPECT_EQ(b.run(packet4(40000, f)).outcome, verdict::forward);
    return only_state(b);
  };
  EXPECT_EQ(after({syn}), connection_state::syn);
  EXPECT_EQ(after({syn, ack}), connection_state::established);
  EXPECT_EQ(after({ack}), connection_state::learned);
  EXPECT_EQ(after({ack, ack}), connection_state::established);
  EXPECT_EQ(after({syn, ack, fin_ack}), connection_state::closing);
  EXPECT_EQ(after({syn, ack, rst}), connection_state::closed);
  EXPECT_EQ(after({rst}), connection_state::free);
  EXPECT_EQ(after({fin_ack}), connection_state::free);
  EXPECT_EQ(after({0x00}), connection_state::free);
  EXPECT_EQ(after({syn | 0x01}), connection_state::free);
  EXPECT_EQ(after({syn, ack, syn}), connection_state::established);
}

TEST_F(connections, begin_in_the_clocks_first_second) {
  bench b{tables.view()};
  b.now_ns = 1;
  b.run(packet4(1000, syn));
  b.run(packet4(1000, ack));
  EXPECT_EQ(only_state(b), connection_state::established);
  b.run(packet4(1000, fin_ack));
  EXPECT_EQ(only_state(b), connection_state::closing);
}

TEST_F(connections, udp_states) {
  bench b{tables.view()};
  b.run(datagram(40000));
  EXPECT_EQ(only_state(b), connection_state::udp_new);
  b.run(datagram(40000));
  EXPECT_EQ(only_state(b), connection_state::udp);
}

// Backends that have no row, and so no prepared header: 3 where there are 3 rows, 2 as well, as
// only a power of two is used.
TEST_F(connections, go_the_long_way_to_backends_without_a_row) {
  bench b{tables.view(), 4096, bench_ports, 0x0123456789abcdef, {}, 0, {}, 3};
  std::set<unsigned> met;
  for (unsigned source = 40000; source < 40200; ++source)
    for (const unsigned flags : {syn, ack, ack}) {
      const result r = b.run(packet4(source, flags));
      ASSERT_EQ(r.outcome, verdict::forward);
      met.insert(r.backend.index());
      EXPECT_EQ(static_cast<unsigned>(r.frame[5]), r.backend.index());
    }
  EXPECT_EQ(met.size(), 4u);
}

// The point of tracking: the scheduler's table may change, the connection stays.
TEST_F(connections, stay_when_the_table_changes) {
  bench b{tables.view()};
  std::map<unsigned, abi::backend_ref> where;
  for (unsigned port = 1000; port < 1500; ++port) {
    where[port] = b.run(packet4(port, syn)).backend;
    where[port + 10000] = b.run(packet6(port, syn)).backend;
    where[port + 20000] = b.run(datagram(port)).backend;
  }
  leave_table(0, 1);
  leave_table(1, 1);
  leave_table(2, 1);
  b.path().set_view(tables.view());
  for (unsigned port = 1000; port < 1500; ++port) {
    EXPECT_EQ(b.run(packet4(port, ack)).backend, where[port]);
    EXPECT_EQ(b.run(packet6(port, ack)).backend, where[port + 10000]);
    EXPECT_EQ(b.run(datagram(port)).backend, where[port + 20000]);
  }
  EXPECT_EQ(b.run(packet4(9999, syn)).backend.index(), 1u);
  EXPECT_EQ(b.count(connection_hits), 1500u);
  EXPECT_EQ(b.count(connections_moved), 0u);
}

// Which backend: the slot of the one flow hash, so that explain and every node agree.
TEST_F(connections, new_ones_go_where_the_flow_hash_says) {
  bench b{tables.view()};
  for (unsigned port = 1; port < 3000; port += 7) {
    const result r = b.run(packet4(port, syn));
    const auto swapped = [](unsigned p) { return ((p & 0xff) << 8) | (p >> 8); };
    // 203.0.113.7 and 198.51.100.10 as they lie in memory.
    const std::uint64_t hash =
        sluice_flow_hash4(42, 0x077100cb, 0x0a6433c6, swapped(port), swapped(443), 6);
    EXPECT_EQ(r.backend.index(), sluice_slot(hash, 251) % 4);
  }
}

TEST_F(connections, one_burst_may_hold_a_whole_connection) {
  bench b{tables.view()};
  std::vector<input> in;
  for (unsigned port = 1000; port < 1060; ++port)
    for (const unsigned f : {syn, ack, ack}) in.push_back({packet4(port, f)});
  const auto out = b.run(in);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].backend, out[i - i % 3].backend);
  EXPECT_EQ(b.count(connections_opened), 60u);
  EXPECT_EQ(b.count(connection_hits), 120u);
  EXPECT_EQ(b.table().v4.size(connection_state::established), 60u);
}

TEST_F(connections, of_a_backend_that_is_down_move_and_stay_moved) {
  bench b{tables.view()};
  for (unsigned port = 1000; port < 1400; ++port) {
    b.run(packet4(port, syn));
    b.run(packet4(port, ack));
  }
  const std::uint64_t had = b.backend(2).opened.read();
  ASSERT_GT(had, 50u);
  // Backend 2 is down: out of the scheduler's table, and keeps nothing.
  for (std::uint32_t i = 0; i < 251; ++i)
    if (tables.slot(tables.service(0), i) == 2) tables.set_slot(tables.service(0), i, 3);
  tables.backend(2).flags = abi::backend_in_use | abi::backend_has_next_hop;
  b.path().set_view(tables.view());
  for (int round = 0; round < 2; ++round)
    for (unsigned port = 1000; port < 1400; ++port) {
      const result r = b.run(packet4(port, ack));
      EXPECT_EQ(r.outcome, verdict::forward);
      EXPECT_NE(r.backend.index(), 2u);
    }
  EXPECT_EQ(b.count(connections_moved), had);
  EXPECT_EQ(b.backend(2).closed.read(), had);
  EXPECT_EQ(b.service(abi::service_id{0}).opened.read(), 400u) << "moved, not new";
  std::uint64_t tracked = 0;
  for (unsigned i = 0; i < 4; ++i)
    tracked += b.backend(i).opened.read() - b.backend(i).closed.read();
  EXPECT_EQ(tracked, b.table().v4.size());
}

// Drained: nothing new, but what is there goes on.
TEST_F(connections, of_a_drained_backend_go_on) {
  bench b{tables.view()};
  leave_table(0, 2);
  b.run(packet4(1000, syn));
  b.run(packet4(1000, ack));
  leave_table(0, 1);
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(1000, ack)).backend.index(), 2u);
  EXPECT_EQ(b.run(packet4(1001, syn)).backend.index(), 1u);
  // A client that closes and opens again from the same port has a new connection.
  b.run(packet4(1000, rst));
  EXPECT_EQ(b.run(packet4(1000, syn)).backend.index(), 1u);
  EXPECT_EQ(b.count(connections_moved), 0u);
  EXPECT_EQ(b.table().v4.size(), 2u);
}

// A row that has been given to another backend has another incarnation.
TEST_F(connections, do_not_follow_a_row_to_its_next_backend) {
  bench b{tables.view()};
  leave_table(0, 2);
  b.run(packet4(1000, syn));
  tables.backend(2).incarnation = 4;
  tables.backend(2).address = ip_address::v4({10, 9, 9, 9});
  leave_table(0, 0);
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(1000, ack)).backend.index(), 0u);
  EXPECT_EQ(b.count(connections_moved), 1u);
  EXPECT_EQ(b.backend(2).closed.read(), 0u) << "counted against the row's new owner";
}

// The same for a row that now serves another VIP, with the same incarnation by accident.
TEST_F(connections, do_not_leave_their_vip) {
  bench b{tables.view()};
  leave_table(0, 2);
  b.run(packet4(1000, syn));
  EXPECT_EQ(b.run(packet4(1000, ack)).backend.index(), 2u);
  tables.backend(2).service = abi::service_id{1};
  leave_table(0, 0);
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(1000, ack)).backend.index(), 0u);
}

TEST_F(connections, of_a_removed_service_end) {
  bench b{tables.view()};
  b.run(packet4(1000, syn));
  for (std::uint32_t i = 0; i < 4; ++i) tables.backend(i).flags = 0;
  for (std::uint32_t i = 0; i <= tables.header().port_mask; ++i)
    if (tables.ports()[i].port == 443) tables.ports()[i].port = 444;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(1000, ack)).reason, drop_no_service_port);
  EXPECT_EQ(b.run(packet4(1000, ack), kernel_port).why, kernel_reason::no_service_port);
}

TEST_F(connections, age_by_state_and_are_swept) {
  bench b{tables.view()};
  b.run(packet4(1000, syn));                                    // 30 s
  for (const unsigned f : {syn, ack}) b.run(packet4(1001, f));  // 900 s
  b.run(datagram(1002));                                        // 30 s
  b.run(packet6(1003, syn));
  EXPECT_EQ(b.table().size(), 4u);
  const auto sweep = [&] {
    for (int i = 0; i < 20'000; ++i) {
      b.now_ns += 1'000'000;
      b.path().maintain(b.now_ns);
    }
  };
  sweep();  // 20 s have passed
  EXPECT_EQ(b.table().size(), 4u);
  sweep();
  sweep();
  EXPECT_EQ(b.table().size(), 1u);
  EXPECT_EQ(b.count(connections_expired), 3u);
  EXPECT_EQ(b.count(connections_closed), 3u);
  EXPECT_EQ(only_state(b), connection_state::established);
  b.now_ns += 900 * second;
  sweep();
  EXPECT_EQ(b.table().size(), 0u);
  std::uint64_t opened = 0;
  std::uint64_t closed = 0;
  for (unsigned i = 0; i < 8; ++i) {
    opened += b.backend(i).opened.read();
    closed += b.backend(i).closed.read();
  }
  EXPECT_EQ(opened, 4u);
  EXPECT_EQ(closed, 4u);
}

// A flush: the control plane gives the backends other names and counts it up. The packets of a
// connection whose entry is not yet gone go where the hash says.
TEST_F(connections, of_renamed_backends_are_flushed) {
  bench b{tables.view()};
  for (unsigned port = 1000; port < 1100; ++port)
    for (const unsigned f : {syn, ack}) b.run(packet4(port, f));
  for (const unsigned f : {syn, ack}) b.run(packet6(1003, f));
  EXPECT_EQ(b.table().size(), 101u);
  const auto maintain = [&] {
    for (int i = 0; i < 2000; ++i) b.path().maintain(b.now_ns += 1000);
  };
  for (std::uint32_t i = 0; i < 4; ++i) {
    tables.backend(i).incarnation = 1;
    tables.member(i) = abi::backend_ref::make(i, 1);
  }
  b.path().set_view(tables.view());
  maintain();
  EXPECT_EQ(b.table().size(), 101u) << "nobody has asked for it";
  tables.header().flushes = 7;
  b.path().set_view(tables.view());
  const auto going_on = b.run(packet4(1000, ack));
  EXPECT_EQ(going_on.outcome, verdict::forward);
  EXPECT_EQ(going_on.backend.incarnation(), 1u);
  maintain();
  EXPECT_EQ(b.table().size(), 2u) << "the one that went on, and that of another service";
  EXPECT_EQ(b.count(connections_closed), 99u);
  b.run(packet4(1001, ack));
  maintain();
  EXPECT_EQ(b.table().size(), 3u) << "what has come since stays";
}

TEST_F(connections, are_kept_alive_by_packets) {
  bench b{tables.view()};
  b.run(packet4(1000, syn));
  for (int i = 0; i < 40; ++i) {
    b.now_ns += 25 * second;
    b.run(packet4(1000, syn));
    for (int k = 0; k < 100; ++k) b.path().maintain(b.now_ns);
  }
  EXPECT_EQ(b.table().size(), 1u);
  EXPECT_EQ(b.count(connections_opened), 1u);
}

// A flood of SYNs: everything is forwarded, the established connections stay.
TEST_F(connections, a_flood_costs_nothing_established) {
  bench b{tables.view(), 128};
  std::map<unsigned, abi::backend_ref> where;
  for (unsigned port = 1000; port < 1064; ++port) {
    b.run(packet4(port, syn));
    where[port] = b.run(packet4(port, ack)).backend;
  }
  std::vector<input> flood;
  for (unsigned i = 0; i < 20'000; ++i) {
    const auto high = static_cast<std::uint8_t>(1 + i / 250 % 200);
    const auto low = static_cast<std::uint8_t>(1 + i % 250);
    flood.push_back(
        {ethernet(0x0800, ip4({.source = {11, 0, high, low}}, tcp({2000 + i % 7, 443, syn})))});
  }
  for (const result& r : b.run(flood)) ASSERT_EQ(r.outcome, verdict::forward);
  leave_table(0, 0);
  b.path().set_view(tables.view());
  for (unsigned port = 1000; port < 1064; ++port)
    EXPECT_EQ(b.run(packet4(port, ack)).backend, where[port]);
  EXPECT_GT(b.count(connections_evicted), 10'000u);
  EXPECT_EQ(b.count(connections_opened) - b.count(connections_closed), b.table().size());
  EXPECT_EQ(b.count(forwarded), 20'000u + 64 * 3);
}

TEST_F(connections, counts_of_services_and_backends) {
  bench b{tables.view()};
  const bytes payload(77, 1);
  const bytes frame = ethernet(0x0800, ip4({}, tcp({1000, 443, syn}, payload)));
  for (int i = 0; i < 5; ++i) b.run(frame);
  const result r = b.run(frame);
  EXPECT_EQ(b.service(r.service).packets.read(), 6u);
  EXPECT_EQ(b.service(r.service).bytes.read(), 6u * (40 + 77));
  EXPECT_EQ(b.service(r.service).opened.read(), 1u);
  EXPECT_EQ(b.backend(r.backend.index()).packets.read(), 6u);
  EXPECT_EQ(b.backend(r.backend.index()).bytes.read(), 6u * (40 + 77));
  EXPECT_EQ(b.backend(r.backend.index()).opened.read(), 1u);
  tables.service(0).member_count = 0;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(2000, syn)).reason, drop_no_backend);
  EXPECT_EQ(b.service(abi::service_id{0}).dropped.read(), 1u);
}

TEST_F(connections, without_tables) {
  bench b{abi::config_view{}};
  EXPECT_EQ(b.run(packet4(1000, syn)).reason, drop_no_tables);
  EXPECT_EQ(b.run(packet6(1000, syn), kernel_port).reason, drop_no_tables);
  EXPECT_EQ(b.run(ethernet(0x0806, bytes(28, 0)), kernel_port).why, kernel_reason::not_ip);
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(packet4(1000, syn)).outcome, verdict::forward);
  b.path().set_view({});
  EXPECT_EQ(b.run(packet4(1000, ack)).reason, drop_no_tables);
}

// Indices that no control plane of ours writes: dropped as bad_table, never followed.
TEST_F(connections, impossible_tables) {
  const auto reason = [&] {
    bench b{tables.view()};
    const result r = b.run(packet4(1000, syn));
    return r.outcome == verdict::drop ? r.reason : abi::counter_id::count_;
  };
  abi::service_row& s = tables.service(0);
  const abi::service_row whole = s;
  s.table_offset = tables.size() - 100;
  EXPECT_EQ(reason(), drop_bad_table);
  s.table_offset = ~std::uint64_t{0} - 1;
  EXPECT_EQ(reason(), drop_bad_table);
  s.table_offset = whole.table_offset + 1;
  EXPECT_EQ(reason(), drop_bad_table);
  s.table_offset = 64;  // in the segment, but not in the arena
  EXPECT_EQ(reason(), drop_bad_table);
  s = whole;
  s.table_size = 0;
  EXPECT_EQ(reason(), drop_bad_table);
  s = whole;
  s.member_first = 0xffffffff;
  EXPECT_EQ(reason(), drop_bad_table);
  s = whole;
  leave_table(0, 0xffff);
  EXPECT_EQ(reason(), drop_bad_table);
  leave_table(0, 0);
  tables.member(0) = abi::backend_ref{};
  EXPECT_EQ(reason(), drop_bad_table);
  tables.member(0) = abi::backend_ref::make(4, 3);  // another service's backend
  EXPECT_EQ(reason(), drop_bad_table);
  tables.member(0) = abi::backend_ref::make(0, 2);  // another incarnation
  EXPECT_EQ(reason(), drop_bad_table);
  tables.member(0) = abi::backend_ref::make(0, 3);
  tables.backend(0).mode = abi::forward_mode::none;
  EXPECT_EQ(reason(), drop_bad_table);
  tables.backend(0).mode = static_cast<abi::forward_mode>(77);
  EXPECT_EQ(reason(), drop_bad_table);
  tables.backend(0).mode = abi::forward_mode::ipip;
  tables.header().source4.configured = 0;
  EXPECT_EQ(reason(), drop_bad_table);
  tables.header().source4.configured = 1;
  EXPECT_EQ(reason(), abi::counter_id::count_);
}

// Outer sources from a prefix: in it, spread, steady per flow, never its first or last.
TEST_F(connections, outer_source_prefix) {
  tables.header().source4 = {ip_address::v4({192, 0, 2, 64}), 26, 1, {}};
  bench b{tables.view()};
  std::set<unsigned> seen;
  for (unsigned port = 1; port < 4000; ++port) {
    const result first = b.run(packet4(port, syn));
    const result again = b.run(packet4(port, ack));
    ASSERT_EQ(bytes(first.frame.begin() + 26, first.frame.begin() + 30),
              bytes(again.frame.begin() + 26, again.frame.begin() + 30));
    EXPECT_EQ(checksum_of(first.frame, 14, 20), 0u);
    EXPECT_EQ(checksum_of(again.frame, 14, 20), 0u);
    ASSERT_EQ(bytes(first.frame.begin() + 26, first.frame.begin() + 29), (bytes{192, 0, 2}));
    seen.insert(first.frame[29]);
  }
  EXPECT_EQ(seen.size(), 62u);
  EXPECT_EQ(*seen.begin(), 65u);
  EXPECT_EQ(*seen.rbegin(), 126u);
}

}  // namespace
}  // namespace sluice::test
