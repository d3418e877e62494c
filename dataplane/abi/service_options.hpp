// SPDX-License-Identifier: Apache-2.0
// What only some services ask for: limits, lists, persistence, QUIC, the client's address.
#pragma once

#include <cstdint>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::abi {

// How the client's address reaches a full-nat backend.
enum class client_address : std::uint8_t { none = 0, proxy_v2 = 1, toa = 2 };

inline constexpr std::uint16_t no_list = 0xffff;

// service_options: what only some services ask for; same index as the service_row. Rates
// are per worker (the control plane divides what was configured by the workers); 0: no limit.
struct alignas(cache_line) service_options {
  std::uint32_t connection_rate;         // new connections per second
  std::uint32_t source_connection_rate;  // the same, per source prefix
  std::uint32_t packet_rate;             // packets per second
  std::uint32_t syn_flood_rate;          // SYNs per second above which a SYN takes no table entry
  std::uint8_t source_prefix4, source_prefix6;  // bits that source_connection_rate counts by
  std::uint8_t persistence_prefix4, persistence_prefix6;  // bits
  std::uint16_t persistence_timeout;                      // seconds; 0: no persistence
  std::uint16_t allow_list;     // index of a prefix_list; no_list: everybody
  std::uint16_t deny_list;      // index of a prefix_list; no_list: nobody
  abi::client_address client;   // full_nat
  std::uint8_t quic_id_length;  // bytes of server id in a QUIC connection id; 0: not QUIC
  std::uint8_t quic_id_offset;  // where it begins in the connection id (1: QUIC-LB)
  std::uint8_t reserved0[3];
  std::uint64_t reserved1[4];
};
static_assert(sizeof(service_options) == 64);

}  // namespace sluice::abi
