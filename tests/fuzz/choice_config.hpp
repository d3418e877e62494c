// SPDX-License-Identifier: Apache-2.0
// Gives some services of the rows' configuration every option there is, for the fuzzers.
#pragma once

#include "tests/packet/list_builder.hpp"
#include "tests/packet/rows.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

inline void add_choices(table_builder& t) {
  const auto with_options = [&t](std::uint32_t service) -> abi::service_options& {
    t.service(service).flags |= abi::service_has_options;
    abi::service_options& o = t.options(service);
    o = {};
    o.allow_list = o.deny_list = abi::no_list;
    return o;
  };
  // Every packet counts: limits of all kinds, persistence, a scheduler that counts.
  abi::service_options& web = with_options(web_4in4);
  t.service(web_4in4).flags |= abi::service_counts_packets;
  t.service(web_4in4).kind = abi::scheduler::round_robin;
  web.connection_rate = 20;
  web.source_connection_rate = 10;
  web.source_prefix4 = 24;
  web.syn_flood_rate = 3;
  web.packet_rate = 50;
  with_options(web_4in6).persistence_timeout = 30;
  t.options(web_4in6).persistence_prefix4 = 20;
  // QUIC, IPv4 and IPv6.
  for (const auto& [service, length] : {std::pair{dns4, 2u}, std::pair{dsr6, 1u}}) {
    abi::service_options& o = with_options(service);
    o.quic_id_offset = 1;
    o.quic_id_length = static_cast<std::uint8_t>(length);
  }
  for (std::uint32_t i = 0; i < t.header().backend_count; ++i) {
    abi::backend_row& row = t.backend(i);
    if (row.service != abi::service_id{dns4} && row.service != abi::service_id{dsr6}) continue;
    row.quic_id_length = t.options(static_cast<std::uint32_t>(row.service)).quic_id_length;
    row.quic_id[0] = 0xaa;
  }
  t.service(range4).kind = abi::scheduler::weighted_least_connections;
  t.service(any4).kind = abi::scheduler::source_hash;
  // A list of both families, of whom most rows come from: denied, and allowed.
  std::uint64_t at = t.layout().arena + t.layout().arena_bytes / 2;
  t.list(0) = write_list(t.bytes(), at, {{0x0a000000, 0x0affffff}, {0xc0000200, 0xc00002ff}},
                         {{ip_address{}, ip_address::v6({1})}});
  t.header().list_count = 1;
  with_options(range4_second).deny_list = 0;
  with_options(web_6in6).deny_list = 0;
}

}  // namespace sluice::test
