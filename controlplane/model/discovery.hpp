// SPDX-License-Identifier: Apache-2.0
// discovery: where a service's backends come from, beside those that are configured, as a
// value. What was found is kept elsewhere (controlplane/discover). Compared with ==.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sluice::model {

enum class discovery_kind : std::uint8_t { none, dns, file, consul, kubernetes };
// automatic: addresses of the family of the service's own.
enum class dns_records : std::uint8_t { automatic, a, aaaa, both, srv };
// Where a backend of a service comes from. vanished: its source no longer has it; it is drained.
enum class backend_source : std::uint8_t { configured, discovered, vanished };

struct discovery {
  discovery_kind kind{discovery_kind::none};
  std::string name;    // dns; consul: a service; kubernetes: "namespace/service"
  std::string server;  // dns: "192.0.2.53:53"; empty: those of /etc/resolv.conf; others: a URL
  std::string path;    // file: absolute
  dns_records records{dns_records::automatic};
  std::chrono::milliseconds min_interval{5'000};  // between two queries; others: two failures
  std::chrono::milliseconds max_interval{300'000};
  std::string ca;                    // of an https server, a PEM file; empty: the host's
  std::string token_file;            // empty: none
  std::string datacenter;            // consul; empty: the agent's own
  std::string tag;                   // consul; empty: any
  bool passing{false};               // consul: only those whose checks pass
  std::string port_name;             // kubernetes; empty: the first
  std::string load_balancer_class;   // kubernetes: of which Services the status is written
  std::uint32_t weight{100};         // of backends whose source gives none; not file
  std::uint8_t tier{0};              // added to those that follow from priorities; not file
  std::uint32_t max_backends{1000};  // an answer with more is refused
  bool allow_empty{false};           // an answer with none takes all of them away

  // by_http() tells whether a server is asked at a URL.
  [[nodiscard]] bool by_http() const noexcept {
    return kind == discovery_kind::consul || kind == discovery_kind::kubernetes;
  }
  [[nodiscard]] bool given() const noexcept { return kind != discovery_kind::none; }
  bool operator==(const discovery&) const = default;
};

}  // namespace sluice::model
