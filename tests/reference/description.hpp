// SPDX-License-Identifier: Apache-2.0
// What is balanced, as plain values: the reference model reads these, and fill() makes the
// tables of the packet path from them. Nothing is looked up by hash, nothing is packed.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/abi/service_table.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::reference {

using octets = std::vector<std::uint8_t>;
using mac = std::array<std::uint8_t, 6>;

// address: 4 or 16 bytes as they are on the wire.
struct address {
  std::uint8_t size{0};
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const address&) const = default;
};
address address4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d);
address address6(const std::array<std::uint8_t, 16>& bytes);
ip_address to_table(const address& a);

// backend: a row. Its number is its place in description::backends.
struct backend {
  bool in_use{false};
  bool keeps_connections{false};
  bool has_next_hop{false};
  unsigned incarnation{0};  // 0 to 15
  unsigned service{0};
  address at{};
  mac next_hop{};
  unsigned out_port{0};
  unsigned mtu{0};  // 0: not known
  unsigned dscp{0};
  unsigned port{0};    // nat, full-nat: 0: as in the packet
  unsigned weight{1};  // of weighted least connections
};

// service: a row. Its number is its place in description::services.
struct service {
  bool in_use{false};
  std::size_t vip{0};  // place in description::vips
  unsigned first{0};   // ports; 0 to 65535: any that no other service has
  unsigned last{0};
  abi::forward_mode mode{abi::forward_mode::ipip};
  abi::scheduler kind{abi::scheduler::maglev};
  std::vector<unsigned> members{};     // numbers of backends that take new connections
  std::vector<std::uint16_t> table{};  // a slot: a place in `members`
  unsigned mss_clamp{0};               // 0: none
  bool answers_echo{false};
};

struct vip {
  bool in_use{false};
  unsigned id{0};
  address at{};
  unsigned protocol{6};
};

struct tunnel_source {
  bool configured{false};
  address base{};
  unsigned prefix{0};
};

struct description {
  bool empty{false};               // no tables at all
  bool counts_connections{false};  // services may be scheduled by least connections
  std::uint64_t hash_seed{42};
  tunnel_source source4{};
  tunnel_source source6{};
  unsigned gue_port{0};                     // 0: 6080
  std::array<std::uint16_t, 8> timeouts{};  // seconds, by abi::connection_state
  std::vector<vip> vips{};
  std::vector<service> services{};
  std::vector<backend> backends{};
  std::vector<address> pool{};  // sources of full-nat

  // vip_of() is the place of the VIP that has this address and protocol.
  [[nodiscard]] std::optional<std::size_t> vip_of(const address& at, unsigned protocol) const;
  // service_of() is the number of the service on a port of a VIP: one of just this port, else
  // one of a range, else the one of any port.
  [[nodiscard]] std::optional<unsigned> service_of(std::size_t vip, unsigned port) const;
  // translates() tells whether there is a service of nat or full-nat.
  [[nodiscard]] bool translates() const;
};

void fill(const description& from, test::table_builder& to);

}  // namespace sluice::reference
