// SPDX-License-Identifier: Apache-2.0
// The source address of a packet whose addresses are readable.
#pragma once

#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/headers.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/path/packet.hpp"

namespace sluice {

inline ip_address source_of(const packet& p, const wire::parsed& m) noexcept {
  if (m.version == 4)
    return ip_address::v4(reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3)->source);
  return ip_address::v6(reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3)->source);
}

}  // namespace sluice
