// SPDX-License-Identifier: Apache-2.0
// Tables with one service that has options, and one beside it that has none.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "tests/packet/bench.hpp"
#include "tests/packet/list_builder.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

inline constexpr std::uint64_t second = 1'000'000'000;
inline constexpr unsigned syn = 0x02;
inline constexpr unsigned ack = 0x10;
inline constexpr unsigned fin_ack = 0x11;
inline constexpr unsigned rst = 0x04;

// Service 0: 198.51.100.10 tcp 443, with options. 1: tcp 80. 2: udp 443, with options. 3: IPv6
// tcp 443, with service 0's options. Four backends each, dsr-l2.
class options : public ::testing::Test {
 protected:
  options() {
    const ip_address vip = ip_address::v4({198, 51, 100, 10});
    const auto some = [](unsigned first) {
      std::vector<table_builder::backend_spec> b;
      for (unsigned i = first; i < first + 4; ++i) {
        const auto last = static_cast<std::uint8_t>(i);
        b.push_back(
            {ip_address::v4({10, 0, 0, last}),
             {2, 0, 0, 0, 0xb, last},
             0,
             1500,
             abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop});
      }
      return b;
    };
    const auto dsr = abi::forward_mode::dsr_l2;
    tables.add_service(vip, ip_proto::tcp, 443, 443, dsr, some(0));
    tables.add_service(vip, ip_proto::tcp, 80, 80, dsr, some(4));
    tables.add_service(vip, ip_proto::udp, 443, 443, dsr, some(8));
    tables.add_service(ip_address::v6(vip6), ip_proto::tcp, 443, 443, dsr, some(12));
    for (std::uint32_t i = 0; i < 4; ++i) tables.options(i).allow_list = abi::no_list;
    for (std::uint32_t i = 0; i < 4; ++i) tables.options(i).deny_list = abi::no_list;
  }
  // ask() changes the options of service 0 and of its IPv6 likeness (but for its lists).
  template <class Change>
  void ask(Change&& change) {
    for (const std::uint32_t id : {0u, 3u}) {
      abi::service_options& o = tables.options(id);
      const abi::service_options before = o;
      change(o);
      if (id == 3) {
        o.deny_list = before.deny_list;
        o.allow_list = before.allow_list;
      }
      tables.service(id).flags |= abi::service_has_options;
    }
  }
  // set_table() fills a service's slots with these members, in turns.
  void set_table(std::uint32_t service, const std::vector<std::uint16_t>& members) {
    const abi::service_row& s = tables.service(service);
    for (std::uint32_t i = 0; i < s.table_size; ++i)
      tables.set_slot(s, i, members[i % members.size()]);
  }
  std::uint16_t add_list(const std::vector<ipv4_range>& ranges) {
    std::uint64_t at = tables.layout().arena + 65536 + tables.header().list_count * 300'000u;
    const std::uint16_t n = tables.header().list_count++;
    tables.list(n) = write_list(tables.bytes(), at, ranges);
    return n;
  }
  abi::config_view view() { return tables.view(); }
  static bytes packet_of(unsigned n, unsigned flags, unsigned port = 443) {
    return ethernet(0x0800, ip4({}, tcp({1024 + n, port, flags})));
  }
  table_builder tables;
};

}  // namespace sluice::test
