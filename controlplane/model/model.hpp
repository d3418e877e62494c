// SPDX-License-Identifier: Apache-2.0
// The desired state as values: what an operator asked for, validated, with the
// defaults filled in. No I/O here. Copied freely; compared with ==.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/model/discovery.hpp"
#include "controlplane/model/health.hpp"
#include "controlplane/model/options.hpp"
#include "controlplane/model/reports.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::model {

using milliseconds = std::chrono::milliseconds;

enum class protocol : std::uint8_t { tcp = 6, udp = 17 };

// Values of this and of forward_mode are the ABI's (dataplane/abi/service_table.hpp), which
// says what they mean; publish/effective.cpp asserts that.
enum class scheduler_kind : std::uint8_t {
  maglev = 1,
  ring_hash = 2,
  partitioned_hash = 3,
  source_hash = 4,
  round_robin = 5,
  weighted_round_robin = 6,
  random = 7,
  weighted_random = 8,
  least_connections = 9,
  weighted_least_connections = 10,
};

enum class forward_mode : std::uint8_t {
  dsr_l2 = 1,
  ipip = 2,
  gue = 3,
  gre = 4,
  dsr_dscp = 5,
  nat = 6,
  full_nat = 7,
};

// tunnels() tells whether the mode puts an outer header around the packet; translates(),
// whether it changes the destination to the backend's address and replies come back through us.
[[nodiscard]] constexpr bool tunnels(forward_mode m) noexcept {
  return m == forward_mode::ipip || m == forward_mode::gue || m == forward_mode::gre;
}
[[nodiscard]] constexpr bool translates(forward_mode m) noexcept {
  return m == forward_mode::nat || m == forward_mode::full_nat;
}
// carries() tells whether a probe of the kind can go the way of the mode's packets, and find a
// backend that has the VIP there. With dsr-dscp only TCP and UDP do (docs/bpf.md, decap).
[[nodiscard]] constexpr bool carries(forward_mode m, health_kind k) noexcept {
  return travels(k) && !translates(m) && (m != forward_mode::dsr_dscp || k != health_kind::icmp);
}
// overhead() is how many bytes a tunnel puts in front of a packet to a backend.
[[nodiscard]] constexpr std::uint16_t overhead(forward_mode m, bool backend_v4) noexcept {
  if (!tunnels(m)) return 0;
  const int inner = m == forward_mode::gue ? 8 : m == forward_mode::gre ? 4 : 0;
  return static_cast<std::uint16_t>((backend_v4 ? 20 : 40) + inner);
}
// weighs() tells whether a scheduler takes weights as more than zero or not.
[[nodiscard]] constexpr bool weighs(scheduler_kind s) noexcept {
  return s != scheduler_kind::round_robin && s != scheduler_kind::random &&
         s != scheduler_kind::least_connections;
}
// sized() tells whether a scheduler's table has a size to choose.
[[nodiscard]] constexpr bool sized(scheduler_kind s) noexcept {
  return s != scheduler_kind::round_robin && s != scheduler_kind::random;
}

// A port, a range, or any (first 0, last 65535). Host order.
struct port_range {
  std::uint16_t first{};
  std::uint16_t last{};

  [[nodiscard]] bool any() const noexcept { return first == 0; }
  [[nodiscard]] bool single() const noexcept { return first == last; }
  auto operator<=>(const port_range&) const = default;
};

// What an operator asked of a backend. What health says is kept elsewhere.
// up and down are forced: whatever health checks say.
enum class admin_state : std::uint8_t { enabled, drain, up, down };

struct backend {
  ip_address address;
  std::uint32_t weight{100};  // 0 to 65535; 0: no new connections
  std::uint8_t tier{0};
  admin_state admin{admin_state::enabled};
  std::uint16_t port{0};  // nat, full-nat: destination port, host order; 0: as in the packet
  std::uint8_t dscp{0};   // dsr-dscp: 1 to 63
  model::quic_id quic_id{};
  bool sorry{false};                 // gets new connections when nobody else can serve
  std::uint32_t max_connections{0};  // 0: no limit
  backend_source source{backend_source::configured};  // in a desired state: configured

  bool operator==(const backend&) const = default;
};

// What an operator asked of a backend that is not configured but discovered.
struct discovered_admin {
  ip_address address;
  admin_state admin{admin_state::enabled};

  bool operator==(const discovered_admin&) const = default;
};

// Who says what a service is, and alone may change it.
enum class service_owner : std::uint8_t { operators, kubernetes };

struct service {
  std::string name;  // [a-z0-9][a-z0-9._-]{0,47}
  ip_address address;
  model::protocol protocol{model::protocol::tcp};
  port_range port;
  scheduler_kind scheduler{scheduler_kind::maglev};
  std::uint32_t table_size{65537};  // prime, 251 to 16777213; default where it is not sized()
  forward_mode forward{forward_mode::ipip};
  health_check health;
  std::vector<backend> backends;                // sorted by address
  bool echo{true};                              // ICMP echo to the address is answered
  client_address client{client_address::none};  // full-nat
  model::mss_clamp mss_clamp{};                 // tcp
  model::persistence persistence{};
  std::uint8_t quic_id_length{0};  // udp: bytes of server id in a connection id; 0: not QUIC
  service_limits limits{};
  model::failover failover{};
  model::slow_start slow_start{};
  model::flap_damping flap_damping{};
  milliseconds drain_deadline{0};  // 0: none
  agent_check agent{};
  model::heartbeat heartbeat{};
  weight_steering weights{};
  model::quorum quorum{};
  prefix_set allow{};
  prefix_set deny{};
  discovery discover{};
  std::vector<discovered_admin> discovered;  // sorted by address; none is simply enabled
  service_owner owner{service_owner::operators};

  bool operator==(const service&) const = default;
};

// The whole desired state; services sorted by name.
struct desired_state {
  std::vector<service> services;

  bool operator==(const desired_state&) const = default;
};

// normalise() sorts services by name and backends by address.
void normalise(service& s);
void normalise(desired_state& s);

// find_service() and find_backend() return null when there is none. The state is normalised.
[[nodiscard]] const service* find_service(const desired_state& s, std::string_view name) noexcept;
[[nodiscard]] service* find_service(desired_state& s, std::string_view name) noexcept;
[[nodiscard]] const backend* find_backend(const service& s, const ip_address& address) noexcept;
[[nodiscard]] backend* find_backend(service& s, const ip_address& address) noexcept;

// discovered_admin_of() is what was asked of a backend that is discovered; enabled: nothing.
[[nodiscard]] admin_state discovered_admin_of(const service& s, const ip_address& address) noexcept;
void set_discovered_admin(service& s, const ip_address& address, admin_state admin);

// keep_owned() has `next` hold those services of `now` that are not the operators', as they are;
// what `next` has of such ones goes.
void keep_owned(desired_state& next, const desired_state& now);
// touched_owned() is the name of a service that is not the operators' and which differs in more
// than what was asked of discovered backends; empty: none.
[[nodiscard]] std::string touched_owned(const desired_state& next, const desired_state& now);

}  // namespace sluice::model
