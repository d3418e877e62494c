// SPDX-License-Identifier: Apache-2.0
// Gives a packet other addresses and ports, and keeps its checksums right (incrementally,
// RFC 1624 eqn. 3: a checksum that was wrong stays wrong). Pure: pointers and values.
//
// dsr-dscp  (L3DSR) the destination becomes the backend's address and the DSCP the number
//           that stands for the VIP; the backend puts the VIP back. We route the packet:
//           one off the TTL or hop limit. ECN stays.
// nat       one address and port changes; full-nat: both. One off the TTL, too.
//
// A UDP checksum of 0 (none) stays 0; one that becomes 0 is written as 0xffff (RFC 768,
// RFC 8200 section 8.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/encapsulate.hpp"
#include "dataplane/packet/headers.hpp"
#include "dataplane/packet/parse.hpp"

namespace sluice::wire {

// set_dscp() keeps ECN, and the header checksum right.
inline void set_dscp(ipv4_header& ip, std::uint8_t dscp) noexcept {
  const auto word = [&ip] {
    return be16{static_cast<std::uint16_t>(unsigned{ip.version_ihl} << 8 | ip.tos)};
  };
  const be16 before = word();
  ip.tos = static_cast<std::uint8_t>((ip.tos & 3u) | (dscp & 63u) << 2);
  ip.checksum = updated(ip.checksum, before, word());
}
inline void set_dscp(ipv6_header& ip, std::uint8_t dscp) noexcept {
  constexpr std::uint32_t dscp_bits = 0x0fc00000;
  ip.version_class_label =
      be32{(ip.version_class_label.host() & ~dscp_bits) | std::uint32_t{dscp & 63u} << 22};
}

// flow_ends: both ends of a TCP or UDP flow, as one packet names them.
struct flow_ends {
  ip_address source;
  ip_address destination;
  be16 source_port;
  be16 destination_port;
};

inline flow_ends ends_of(const std::byte* frame, const parsed& m) noexcept {
  flow_ends e;
  if (m.version == 4) {
    const auto& ip = *reinterpret_cast<const ipv4_header*>(frame + m.l3);
    e.source = ip_address::v4(ip.source);
    e.destination = ip_address::v4(ip.destination);
  } else {
    const auto& ip = *reinterpret_cast<const ipv6_header*>(frame + m.l3);
    e.source = ip_address::v6(ip.source);
    e.destination = ip_address::v6(ip.destination);
  }
  if (!has_ports(m.kind)) return e;
  const auto& l4 = *reinterpret_cast<const udp_header*>(frame + m.l4);
  e.source_port = l4.source_port;
  e.destination_port = l4.destination_port;
  return e;
}

// patch_l4() corrects the TCP or UDP checksum for a change of what it covers.
inline void patch_l4(std::byte* frame, const parsed& m, std::uint64_t before,
                     std::uint64_t after) noexcept {
  if (m.protocol == static_cast<std::uint8_t>(ip_proto::tcp)) {
    auto& tcp = *reinterpret_cast<tcp_header*>(frame + m.l4);
    tcp.checksum = changed(tcp.checksum, before, after);
    return;
  }
  auto& udp = *reinterpret_cast<udp_header*>(frame + m.l4);
  if (udp.checksum.raw() == 0) return;
  udp.checksum = changed(udp.checksum, before, after);
  if (udp.checksum.raw() == 0) udp.checksum = be16{0xffff};
}

// readdress() gives a TCP or UDP packet these ends, of the packet's own family. The ports lie
// in the frame's contiguous part. A fragment without ports, or an ICMP packet, gets the
// addresses only.
inline void readdress(std::byte* frame, const parsed& m, const flow_ends& to) noexcept {
  const auto words = [](const void* p, std::size_t n) {
    return sum({static_cast<const std::byte*>(p), n});
  };
  const auto write = [](std::byte* at, const ip_address& source, const ip_address& destination,
                        std::size_t n) {
    std::memcpy(at, source.bytes.data() + 16 - n, n);
    std::memcpy(at + n, destination.bytes.data() + 16 - n, n);
  };
  std::byte* const ip = frame + m.l3;
  std::byte* const l4 = frame + m.l4;
  const std::size_t n = m.version == 4 ? 4 : 16;
  std::byte* const addresses = ip + (m.version == 4 ? 12 : 8);
  const std::uint64_t addresses_before = words(addresses, 2 * n);
  const bool ports_there = has_ports(m.kind);
  const std::uint64_t ports_before = ports_there ? words(l4, 4) : 0;
  write(addresses, to.source, to.destination, n);
  const std::uint16_t ports[2] = {to.source_port.raw(), to.destination_port.raw()};
  if (ports_there) std::memcpy(l4, ports, 4);
  const std::uint64_t addresses_after = words(addresses, 2 * n);
  if (m.version == 4) {
    auto& header = *reinterpret_cast<ipv4_header*>(ip);
    header.checksum = changed(header.checksum, addresses_before, addresses_after);
  }
  if (ports_there) {
    patch_l4(frame, m, addresses_before + ports_before, addresses_after + words(l4, 4));
  } else if (m.kind == parse_kind::other &&
             m.protocol == static_cast<std::uint8_t>(ip_proto::icmpv6)) {
    // Its sum covers the addresses, too (RFC 4443 section 2.3).
    auto& icmp = *reinterpret_cast<icmp_header*>(l4);
    icmp.checksum = changed(icmp.checksum, addresses_before, addresses_after);
  }
}

// route() takes one off the TTL or hop limit, which is above 1.
inline void route(std::byte* frame, const parsed& m) noexcept {
  if (m.version == 4) {
    decrement_ttl(*reinterpret_cast<ipv4_header*>(frame + m.l3));
  } else {
    decrement_ttl(*reinterpret_cast<ipv6_header*>(frame + m.l3));
  }
}

}  // namespace sluice::wire
