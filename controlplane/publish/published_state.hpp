// SPDX-License-Identifier: Apache-2.0
// What the workers shall use: every decision (health, tiers, drain, panic, next hops) is
// already made. Plain values; reconcile/ and memory_config make it, config_writer writes it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/lists/range_set.hpp"
#include "controlplane/model/options.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::publish {

// hop: where the frame to a backend goes.
struct hop {
  mac_address mac{};
  std::uint8_t port{};      // index into the data plane's ports
  std::uint16_t mtu{1500};  // bytes of IP packet that fit the link

  bool operator==(const hop&) const = default;
};

struct published_backend {
  ip_address address;
  std::uint32_t weight{};            // as configured
  std::uint32_t effective_weight{};  // share of new connections; 0: not in the table
  std::uint8_t tier{};
  abi::shown_health health{abi::shown_health::unknown};
  abi::shown_admin admin{abi::shown_admin::enabled};
  bool keeps_connections{true};
  std::uint16_t port{};  // nat, full_nat; 0: as in the packet
  std::uint8_t dscp{};   // dsr_dscp
  model::quic_id quic_id{};
  std::optional<hop> next_hop;

  bool operator==(const published_backend&) const = default;
};

struct published_service {
  std::string name;  // at most 48 characters
  ip_address address;
  std::uint8_t protocol{};  // ip_proto
  std::uint16_t port_first{};
  std::uint16_t port_last{};  // any: 0 to 65535
  abi::forward_mode mode{abi::forward_mode::none};
  abi::scheduler kind{abi::scheduler::maglev};
  std::uint32_t table_size{65537};          // as configured; schedule::table_size() is what it gets
  std::vector<published_backend> backends;  // sorted by address
  bool answers_echo{true};
  std::uint16_t mss_clamp{};  // 0: left alone
  model::client_address client{model::client_address::none};
  model::persistence persistence{};
  std::uint8_t quic_id_length{};   // 0: not QUIC
  model::service_limits limits{};  // of the node, not of a worker
  lists::shared_ranges allow;      // null: everybody
  lists::shared_ranges deny;       // null: nobody

  bool operator==(const published_service&) const = default;
};

struct published_state {
  std::uint64_t revision{};
  std::vector<published_service> services;  // sorted by name
  std::uint16_t workers{};                  // that share the rates; 0: not known

  bool operator==(const published_state&) const = default;
};

// writer_settings: what comes from node.yaml and is the same in every generation.
struct writer_settings {
  std::uint64_t hash_seed{};
  abi::encap_source source4{};
  abi::encap_source source6{};
  std::uint16_t gue_port{6080};
  std::vector<ip_address> pool;  // full-nat's sources
  std::array<std::uint16_t, abi::connection_state_count> timeouts{abi::default_timeouts};
};

// to_encap_source() is not configured without a prefix.
[[nodiscard]] abi::encap_source to_encap_source(const std::optional<ip_prefix>& prefix);

}  // namespace sluice::publish
