// SPDX-License-Identifier: Apache-2.0
// What vip_set has to hold for a set of services. Pure; no kernel. Any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include <tl/expected.hpp>

#include "dataplane/abi/bpf_abi.h"
#include "dataplane/abi/net_types.hpp"

namespace sluice::bpf_loader {

// One service as the steering program sees it. Ports are inclusive and in host order;
// 0 to 65535 is any port. Services may overlap.
struct vip {
  ip_address address;
  ip_proto protocol{ip_proto::tcp};
  std::uint16_t first_port{};
  std::uint16_t last_port{};

  auto operator<=>(const vip&) const = default;
};

struct vip_key_less {
  bool operator()(const sluice_vip_key& a, const sluice_vip_key& b) const noexcept;
};
using vip_entries = std::map<sluice_vip_key, sluice_vip_value, vip_key_less>;

// make_vip_entries() is exact: precisely the ports asked for are in the set, so that a
// VIP which is also an address of the host keeps the host's own services. An address
// and protocol with more disjoint ranges than an entry can list get their smallest
// ranges as single ports. Refuses what does not fit into the map, and a range that is
// upside down.
tl::expected<vip_entries, std::string> make_vip_entries(std::span<const vip> vips);

}  // namespace sluice::bpf_loader
