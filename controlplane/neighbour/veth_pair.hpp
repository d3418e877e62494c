// SPDX-License-Identifier: Apache-2.0
// A veth pair of our own, made over rtnetlink: the near end has addresses and a peer that
// nobody is, without ARP or neighbour discovery; what is sent there comes out of the far
// end, checksums filled in. No route but those to the peer leads there.
// Any thread. Needs CAP_NET_ADMIN.
#pragma once

#include <cstdint>
#include <string>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"

namespace sluice::neighbour {

struct veth_settings {
  std::string near;  // names, at most 15 bytes
  std::string far;
  std::string alias;  // tells ours from another's of the same name
  std::uint32_t mtu{};
  ip_address local4, peer4;  // IPv4; a route to the peer alone
  ip_address local6;         // IPv6, link-local, /64
};

struct veth_pair {
  int near_index{};
  int far_index{};
  mac_address near_mac{};
  bool ipv6{};  // false: the host has none
};

// make_veth_pair() replaces a pair of that name and alias (a killed process has left it);
// what has the name and another alias is left alone, and an error.
[[nodiscard]] tl::expected<veth_pair, std::string> make_veth_pair(const veth_settings& settings);
// fault_of_veth_pair() is what somebody else has done to the pair, such as "gone" or "down";
// empty: it is as it was made.
[[nodiscard]] std::string fault_of_veth_pair(const veth_settings& settings, const veth_pair& pair);
// remove_veth_pair() removes the pair if its alias is this one. Empty, or what went wrong.
std::string remove_veth_pair(const std::string& near, const std::string& alias);

}  // namespace sluice::neighbour
