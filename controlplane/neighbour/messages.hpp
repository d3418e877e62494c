// SPDX-License-Identifier: Apache-2.0
// rtnetlink messages as values (rtnetlink(7), linux/rtnetlink.h, linux/neighbour.h).
// Parsers give nothing for a message that is malformed or of no use here.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/abi/net_types.hpp"

namespace sluice::neighbour {

struct link_info {
  int index{};
  std::string name;
  mac_address mac{};
  std::uint32_t mtu{};
  bool up{};       // IFF_UP
  bool running{};  // IFF_RUNNING: carrier

  bool operator==(const link_info&) const = default;
};

// The answer to a FIB lookup.
struct route_info {
  int error{};          // errno of the lookup; 0: the rest holds
  std::uint8_t type{};  // RTN_UNICAST, RTN_LOCAL, ...
  int interface_index{};
  std::optional<ip_address> gateway;
  std::uint32_t mtu{};  // RTAX_MTU; 0: none

  bool operator==(const route_info&) const = default;
};

struct neighbour_info {
  int interface_index{};
  ip_address address;
  std::uint16_t state{};  // NUD_*
  std::optional<mac_address> mac;
};

struct prefix {
  ip_address base;    // host bits zero
  unsigned length{};  // of the 128 bits of ip_address: an IPv4 length is counted from 96

  [[nodiscard]] bool contains(const ip_address& a) const noexcept;
};

// parse_link() leaves out messages about bridge ports (AF_BRIDGE).
[[nodiscard]] std::optional<link_info> parse_link(const nlmsghdr* message);
[[nodiscard]] std::optional<route_info> parse_route(const nlmsghdr* message);
// parse_route_prefix() is what a route notification is about.
[[nodiscard]] std::optional<prefix> parse_route_prefix(const nlmsghdr* message);
// parse_neighbour() leaves out proxy entries and bridge forwarding entries.
[[nodiscard]] std::optional<neighbour_info> parse_neighbour(const nlmsghdr* message);

// Requests are built in place; buffer of at least 256 bytes, aligned for nlmsghdr.
nlmsghdr* build_link_dump(void* buffer);
nlmsghdr* build_route_lookup(void* buffer, const ip_address& destination);
nlmsghdr* build_neighbour_get(void* buffer, int interface_index, const ip_address& a);
// build_neighbour_use() asks the kernel to resolve or confirm a neighbour (NTF_USE).
nlmsghdr* build_neighbour_use(void* buffer, int interface_index, const ip_address& a);

}  // namespace sluice::neighbour
