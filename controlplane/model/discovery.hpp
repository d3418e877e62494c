// SPDX-License-Identifier: Apache-2.0
// discovery: where a service's backends come from, beside those that are configured, as a
// value. What was found is kept elsewhere (controlplane/discover). Compared with ==.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sluice::model {

enum class discovery_kind : std::uint8_t { none, dns, file };
// automatic: addresses of the family of the service's own.
enum class dns_records : std::uint8_t { automatic, a, aaaa, both, srv };
// Where a backend of a service comes from. vanished: its source no longer has it; it is drained.
enum class backend_source : std::uint8_t { configured, discovered, vanished };

struct discovery {
  discovery_kind kind{discovery_kind::none};
  std::string name;    // dns
  std::string server;  // dns: "192.0.2.53:53"; empty: those of /etc/resolv.conf
  std::string path;    // file: absolute
  dns_records records{dns_records::automatic};
  std::chrono::milliseconds min_interval{5'000};  // dns: between two queries
  std::chrono::milliseconds max_interval{300'000};
  std::uint32_t weight{100};         // dns: of backends whose records have none
  std::uint8_t tier{0};              // dns: added to those that follow from priorities
  std::uint32_t max_backends{1000};  // an answer with more is refused
  bool allow_empty{false};           // an answer with none takes all of them away

  [[nodiscard]] bool given() const noexcept { return kind != discovery_kind::none; }
  bool operator==(const discovery&) const = default;
};

}  // namespace sluice::model
