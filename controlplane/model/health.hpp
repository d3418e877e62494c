// SPDX-License-Identifier: Apache-2.0
// How a service's backends are checked, as a value. Copied freely; compared with ==.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/abi/net_types.hpp"

namespace sluice::model {

enum class health_kind : std::uint8_t { none, tcp, http };
// Which way a probe takes: through the data path as the service's packets do, or to the
// backend's own address. automatic: the former where mode and port allow it.
enum class health_via : std::uint8_t { automatic, direct, data_path };

// A field that the kind has no use for has its default.
struct health_check {
  health_kind kind{health_kind::none};
  std::string path{"/"};            // http: the request target
  std::string host;                 // http: Host header; empty: the backend's address
  std::uint16_t port{};             // 0: the service's port
  std::uint16_t expect_first{200};  // http: accepted status codes, inclusive
  std::uint16_t expect_last{399};
  std::chrono::milliseconds interval{2000};
  std::chrono::milliseconds timeout{1000};
  std::chrono::milliseconds fast_interval{0};  // 0: a second, or the interval if that is shorter
  std::uint8_t jitter{0};                      // per cent of the interval
  std::uint32_t rise{2};
  std::uint32_t fall{3};
  health_via via{health_via::automatic};
  std::optional<ip_address> source{};  // nothing: as the kernel chooses

  bool operator==(const health_check&) const = default;
};

}  // namespace sluice::model
