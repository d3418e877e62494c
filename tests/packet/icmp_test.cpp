// SPDX-License-Identifier: Apache-2.0
// What a single row of ICMP cannot show: that errors follow the connection and not the
// table, that answers are limited, and that a VIP stops answering with its last backend.
#include <gtest/gtest.h>

#include "tests/packet/bench.hpp"
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr std::uint8_t all_flags =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
constexpr quad vip{198, 51, 100, 10};
constexpr quad client{203, 0, 113, 7};
constexpr quad router{192, 0, 2, 1};

class icmp : public ::testing::Test {
 protected:
  icmp() {
    tables.header().source4 = {ip_address::v4({192, 0, 2, 10}), 32, 1, {}};
    std::vector<table_builder::backend_spec> backends;
    for (std::uint8_t i = 0; i < 4; ++i)
      backends.push_back({ip_address::v4({10, 0, 0, i}), {2, 0, 0, 0, 0xb, i}, 0, 1500, all_flags});
    tables.add_service(ip_address::v4(vip), ip_proto::tcp, 443, 443, abi::forward_mode::dsr_l2,
                       backends);
    tables.add_service(ip_address::v6(vip6), ip_proto::udp, 53, 53, abi::forward_mode::dsr_l2,
                       backends);
    tables.service(0).flags = abi::service_answers_echo;
  }
  static bytes packet4(unsigned port, unsigned flags) {
    return ethernet(0x0800, ip4({}, tcp({port, 443, flags})));
  }
  static bytes error4(unsigned port) {
    return ethernet(
        0x0800,
        ip4({.source = router, .protocol = 1},
            icmp4(3, 1, 0, ip4({.source = vip, .destination = client}, tcp({443, port, 0x10})))));
  }
  static bytes packet6(unsigned port) {
    return ethernet(0x86dd, ip6({.next = 17}, udp({port, 53})));
  }
  static bytes error6(unsigned port) {
    hexadec from = client6;
    from[15] = 0x99;
    const bytes quote = ip6({.source = vip6, .destination = client6, .next = 17}, udp({53, port}));
    return ethernet(0x86dd, ip6({.source = from, .next = 58}, icmp6(from, vip6, 1, 4, 0, quote)));
  }
  static bytes ping() {
    return ethernet(0x0800, ip4({.protocol = 1}, icmp4(8, 0, 1, bytes(8, 1))));
  }
  void all_slots_to(std::uint32_t service, std::uint16_t member) {
    const abi::service_row& s = tables.service(service);
    for (std::uint32_t i = 0; i < s.table_size; ++i) tables.set_slot(s, i, member);
  }
  table_builder tables;
};

TEST_F(icmp, errors_go_where_the_hash_says_without_a_connection) {
  bench b{tables.view()};
  for (unsigned port = 2000; port < 2200; ++port) {
    const result e = b.run(error4(port));
    ASSERT_EQ(e.outcome, verdict::forward);
    EXPECT_EQ(e.backend, b.run(packet4(port, 0x02)).backend);
    const result e6 = b.run(error6(port));
    ASSERT_EQ(e6.outcome, verdict::forward);
    EXPECT_EQ(e6.backend, b.run(packet6(port)).backend);
  }
  EXPECT_EQ(b.count(icmp_errors_steered), 400u);
  EXPECT_EQ(b.count(connections_opened), 400u);  // the errors opened none
}

TEST_F(icmp, errors_follow_the_connection_when_the_table_has_changed) {
  bench b{tables.view()};
  std::vector<abi::backend_ref> where;
  std::vector<abi::backend_ref> where6;
  for (unsigned port = 2000; port < 2200; ++port) {
    where.push_back(b.run(packet4(port, 0x02)).backend);
    where6.push_back(b.run(packet6(port)).backend);
  }
  all_slots_to(0, 1);
  all_slots_to(1, 1);
  b.path().set_view(tables.view());
  for (unsigned port = 2000; port < 2200; ++port) {
    EXPECT_EQ(b.run(error4(port)).backend, where[port - 2000]);
    EXPECT_EQ(b.run(error6(port)).backend, where6[port - 2000]);
  }
  EXPECT_EQ(b.run(error4(9999)).backend.index(), 1u);
}

TEST_F(icmp, errors_leave_a_backend_that_is_down) {
  bench b{tables.view()};
  const abi::backend_ref was = b.run(packet4(2000, 0x02)).backend;
  tables.backend(was.index()).flags = abi::backend_in_use | abi::backend_has_next_hop;
  const auto other = static_cast<std::uint16_t>((was.index() + 1) % 4);
  all_slots_to(0, other);
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(error4(2000)).backend.index(), other);
}

TEST_F(icmp, errors_of_translated_services_are_not_ours) {
  tables.service(0).mode = abi::forward_mode::nat;
  bench b{tables.view()};
  EXPECT_EQ(b.run(error4(2000)).reason, drop_icmp_unmatched);
}

TEST_F(icmp, echo_is_answered_while_there_is_a_backend) {
  bench b{tables.view()};
  EXPECT_EQ(b.run(ping()).outcome, verdict::reply);
  tables.service(0).member_count = 0;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(ping()).reason, drop_unsupported_protocol);
  EXPECT_EQ(b.run(ping(), kernel_port).outcome, verdict::kernel);
  tables.service(0).member_count = 4;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(ping()).outcome, verdict::reply);
  tables.service(0).flags = 0;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(ping()).reason, drop_unsupported_protocol);
  EXPECT_EQ(b.count(icmp_echo_answered), 2u);
}

// Per second what was asked for, and once a bucket that holds a second's worth.
TEST_F(icmp, echo_is_limited) {
  for (const std::uint32_t rate : {0u, 50u, 20000u}) {
    tables.header().icmp_rate = rate;
    bench b{tables.view()};
    const std::uint64_t wanted = rate == 0 ? 1000 : rate;
    constexpr unsigned per_second = 40000;
    std::uint64_t sent = 0;
    for (unsigned i = 0; i < per_second * 3; ++i) {
      sent += b.run(ping()).outcome == verdict::reply;
      b.now_ns += 1'000'000'000 / per_second;
    }
    EXPECT_NEAR(static_cast<double>(sent), static_cast<double>(wanted * 4),
                static_cast<double>(wanted) * 0.03 + 3);
    EXPECT_EQ(b.count(icmp_echo_answered), sent);
    EXPECT_EQ(b.count(drop_icmp_rate), per_second * 3 - sent);
    EXPECT_EQ(b.count(icmp_limited), per_second * 3 - sent);
  }
}

TEST_F(icmp, too_big_answers_are_limited_apart_from_echo) {
  tables.header().icmp_rate = 10;
  bench b{tables.view()};
  const bytes big = ethernet(0x0800, ip4({}, tcp({3000, 443, 0x10}, bytes(1600, 1))));
  for (int i = 0; i < 50; ++i) b.run(ping());
  unsigned told = 0;
  for (int i = 0; i < 50; ++i) {
    const result r = b.run(big);
    told += r.outcome == verdict::reply;
    EXPECT_EQ(r.reason, drop_too_big);
  }
  EXPECT_EQ(told, 10u);
  EXPECT_EQ(b.count(icmp_too_big_sent), 10u);
  EXPECT_EQ(b.count(drop_too_big), 50u);
  EXPECT_EQ(b.count(icmp_limited), 40u + 40u);
}

TEST_F(icmp, answers_need_a_port_of_ours) {
  bench b{tables.view()};
  EXPECT_EQ(b.run(ping(), 31).reason, drop_unsupported_protocol);
  const bytes big = ethernet(0x0800, ip4({}, tcp({3000, 443, 0x10}, bytes(1600, 1))));
  EXPECT_EQ(b.run(big, 31).outcome, verdict::drop);
}

}  // namespace
}  // namespace sluice::test
