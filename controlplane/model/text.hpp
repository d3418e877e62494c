// SPDX-License-Identifier: Apache-2.0
// The model as words, JSON and YAML, and the difference of two states in words.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "controlplane/model/model.hpp"

namespace sluice::model {

[[nodiscard]] std::string_view to_string(protocol p) noexcept;
[[nodiscard]] std::string_view to_string(scheduler_kind s) noexcept;
[[nodiscard]] std::string_view to_string(forward_mode m) noexcept;
[[nodiscard]] std::string_view to_string(client_address c) noexcept;
[[nodiscard]] std::string_view to_string(health_kind k) noexcept;
[[nodiscard]] std::string_view to_string(health_via v) noexcept;
[[nodiscard]] std::string_view to_string(admin_state s) noexcept;
[[nodiscard]] std::string_view to_string(discovery_kind k) noexcept;
[[nodiscard]] std::string_view to_string(dns_records r) noexcept;
[[nodiscard]] std::string_view to_string(backend_source s) noexcept;
[[nodiscard]] std::string_view to_string(service_owner o) noexcept;
// "443", "8000-8100" or "any".
[[nodiscard]] std::string to_string(const port_range& r);
// A duration as services.yaml reads it: "2s", "500ms".
[[nodiscard]] std::string to_string(milliseconds d);

// "0a0b0c"
[[nodiscard]] std::string to_string(const quic_id& id);
// "off", "auto" or the number.
[[nodiscard]] std::string to_string(const mss_clamp& m);

// identity() names what a service occupies on the wire: "198.51.100.10:443/tcp",
// "[2001:db8::1]:any/udp".
[[nodiscard]] std::string identity(const service& s);

// options_json() has the keys of services.yaml that are not the defaults, of what only some
// services ask for (options.hpp). The prefixes of lists as one key each.
[[nodiscard]] nlohmann::ordered_json options_json(const service& s);

// to_json() uses the keys of services.yaml; config::parse_service() reads it back.
[[nodiscard]] nlohmann::ordered_json to_json(const discovery& d);
[[nodiscard]] nlohmann::ordered_json to_json(const backend& b);
[[nodiscard]] nlohmann::ordered_json to_json(const service& s);
[[nodiscard]] nlohmann::ordered_json to_json(const desired_state& s);

// to_yaml() writes a services.yaml; config::parse_services() gives back an equal state.
[[nodiscard]] std::string to_yaml(const desired_state& s);

enum class change_kind : std::uint8_t { added, removed, changed };
[[nodiscard]] std::string_view to_string(change_kind k) noexcept;

struct change {
  change_kind kind{};
  std::string service;
  std::optional<ip_address> backend;  // nothing: the service itself
  std::string text;                   // "web: backend 10.0.1.12: weight 100 -> 50"

  bool operator==(const change&) const = default;
};

// diff() compares two normalised states; by service name, then backend address.
[[nodiscard]] std::vector<change> diff(const desired_state& before, const desired_state& after);

}  // namespace sluice::model
