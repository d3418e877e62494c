// SPDX-License-Identifier: Apache-2.0
// What only some services ask for, as values: limits, lists, persistence, QUIC, how the
// client's address and its segment size are treated. Copied freely; compared with ==.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/abi/address_text.hpp"

namespace sluice::model {

// How a full-nat backend learns the client's address. Values are the ABI's client_address.
enum class client_address : std::uint8_t { none = 0, proxy_v2 = 1, toa = 2 };

// The largest segment size that a client's SYN may announce.
struct mss_clamp {
  bool automatic{false};  // what fits the paths to the backends
  std::uint16_t bytes{};  // 0: left alone

  [[nodiscard]] bool off() const noexcept { return !automatic && bytes == 0; }
  bool operator==(const mss_clamp&) const = default;
};

// A source's new connections go where its earlier ones went. Off with timeout 0.
struct persistence {
  std::chrono::seconds timeout{0};
  std::uint8_t ipv4_prefix{32};
  std::uint8_t ipv6_prefix{128};

  [[nodiscard]] bool off() const noexcept { return timeout.count() == 0; }
  bool operator==(const persistence&) const = default;
};

struct source_limit {
  std::uint32_t new_connections{};
  std::uint8_t ipv4_prefix{24};
  std::uint8_t ipv6_prefix{48};

  bool operator==(const source_limit&) const = default;
};

// Rates per second and node; 0: no limit.
struct service_limits {
  std::uint32_t new_connections{};
  std::uint32_t packets{};
  std::uint32_t syn_flood{};
  source_limit per_source;

  bool operator==(const service_limits&) const = default;
};

// When new connections go to another tier, and when health is ignored. In per cent of the
// weight of a tier's backends that are wanted.
struct failover {
  std::uint8_t tier_threshold{0};   // with less of it able to serve, a tier is not good enough
  std::uint8_t panic_threshold{0};  // with less of it in every tier, health is ignored
  std::chrono::milliseconds failback{0};  // a better tier has to be good enough for so long

  bool operator==(const failover&) const = default;
};

// A backend that was down gets its weight back in steps. Off with time 0.
struct slow_start {
  std::chrono::milliseconds time{0};
  std::uint8_t steps{5};

  [[nodiscard]] bool off() const noexcept { return time.count() == 0; }
  bool operator==(const slow_start&) const = default;
};

// A backend that fell so often is held out. Off with falls 0.
struct flap_damping {
  std::uint8_t falls{0};
  std::chrono::milliseconds within{60'000};
  std::chrono::milliseconds hold{60'000};  // after the last fall

  [[nodiscard]] bool off() const noexcept { return falls == 0; }
  bool operator==(const flap_damping&) const = default;
};

// prefix_set: an allow or deny list. A set that is not given() is no list at all; one whose
// file is empty is a list that holds nobody.
struct prefix_set {
  std::vector<ip_prefix> prefixes;  // in the order written
  std::string file;                 // absolute path on the node; empty: none

  [[nodiscard]] bool given() const noexcept { return !prefixes.empty() || !file.empty(); }
  bool operator==(const prefix_set&) const = default;
};

// quic_id: a backend's server id in QUIC connection ids.
struct quic_id {
  std::array<std::uint8_t, 8> bytes{};  // left-aligned
  std::uint8_t length{};                // 0: none

  bool operator==(const quic_id&) const = default;
};

}  // namespace sluice::model
