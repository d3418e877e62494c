// SPDX-License-Identifier: Apache-2.0
// An ICMP error as a whole: is it one, is it sound, and giving it, and the packet that it
// quotes, other addresses (RFC 5508 section 4). Checksums are corrected incrementally
// (RFC 1624 eqn. 3); a quote may be cut off anywhere behind its ports. Pure: pointers, values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"
#include "dataplane/packet/icmp.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/readdress.hpp"

namespace sluice::wire {

constexpr bool is_icmp_error(unsigned version, std::uint8_t type) noexcept {
  if (version == 4)
    return type == icmp4_unreachable || type == icmp4_time_exceeded ||
           type == icmp4_parameter_problem;
  return type >= icmp6_unreachable && type <= icmp6_parameter_problem;
}

// message_holds() checks the checksum of the ICMP message of a packet that is contiguous.
inline bool message_holds(const std::byte* frame, const parsed& m) noexcept {
  const std::uint32_t length = m.ip_length - (m.l4 - std::uint32_t{m.l3});
  std::uint64_t total = sum({frame + m.l4, length});
  if (m.version == 6) {
    const auto& ip = *reinterpret_cast<const ipv6_header*>(frame + m.l3);
    total =
        add(total, pseudo_sum6(ip.source.data(), ip.destination.data(), length, ip_proto::icmpv6));
  }
  return checksum_holds(total);
}

// mtu_of() is the MTU that an error tells, 0: none, or it does not say.
inline std::uint32_t mtu_of(unsigned version, const icmp_header& icmp) noexcept {
  if (version == 4)
    return icmp.type == icmp4_unreachable && icmp.code == icmp4_fragmentation_needed
               ? icmp.low.host()
               : 0u;
  return icmp.type == icmp6_too_big ? std::uint32_t{icmp.high.host()} << 16 | icmp.low.host() : 0;
}

// retold: what becomes of an error.
struct retold {
  flow_ends outer;            // its own addresses
  flow_ends quote;            // ends of the packet that it quotes
  std::uint32_t sequence{0};  // of the quoted TCP segment, host order
  std::uint32_t mtu{0};       // to tell instead; 0: as it is
};

// retell() writes all that into an error that is contiguous, and whose quote `q` is a flow's of
// the same family.
inline void retell(std::byte* frame, const parsed& m, const quoted& q, const retold& to) noexcept {
  const std::uint32_t end = std::uint32_t{m.l3} + m.ip_length;
  auto& icmp = *reinterpret_cast<icmp_header*>(frame + m.l4);
  // All that changes behind the checksum. It begins at an even place of the message.
  const std::span<std::byte> part{
      frame + m.l4 + 4, std::min(end, q.l4 + std::uint32_t{sizeof(tcp_header)}) - m.l4 - 4};
  const std::uint64_t part_before = sum(part);
  if (to.mtu != 0) {
    icmp.low = be16{static_cast<std::uint16_t>(to.mtu)};
    if (m.version == 6) icmp.high = be16{static_cast<std::uint16_t>(to.mtu >> 16)};
  }
  const std::size_t n = m.version == 4 ? 4 : 16;
  std::byte* const ip = frame + q.ip;
  std::byte* const l4 = frame + q.l4;
  std::byte* const addresses = ip + (m.version == 4 ? 12 : 8);
  const std::uint64_t addresses_before = sum({addresses, 2 * n});
  std::memcpy(addresses, to.quote.source.bytes.data() + 16 - n, n);
  std::memcpy(addresses + n, to.quote.destination.bytes.data() + 16 - n, n);
  const std::uint64_t addresses_after = sum({addresses, 2 * n});
  if (m.version == 4) {
    auto& header = *reinterpret_cast<ipv4_header*>(ip);
    header.checksum = changed(header.checksum, addresses_before, addresses_after);
  }
  const bool tcp = q.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
  const std::size_t changing = tcp ? 8 : 4;  // ports, sequence number
  const std::uint64_t l4_before = sum({l4, changing});
  const std::uint16_t ports[2] = {to.quote.source_port.raw(), to.quote.destination_port.raw()};
  std::memcpy(l4, ports, 4);
  if (tcp) {
    const be32 sequence{to.sequence};
    std::memcpy(l4 + 4, &sequence, 4);
  }
  const std::uint64_t before = addresses_before + l4_before;
  const std::uint64_t after = addresses_after + sum({l4, changing});
  if (tcp && q.l4 + offsetof(tcp_header, checksum) + 2 <= end) {
    auto& header = *reinterpret_cast<tcp_header*>(l4);
    header.checksum = changed(header.checksum, before, after);
  } else if (!tcp) {
    auto& header = *reinterpret_cast<udp_header*>(l4);
    if (header.checksum.raw() != 0) {
      header.checksum = changed(header.checksum, before, after);
      if (header.checksum.raw() == 0) header.checksum = be16{0xffff};
    }
  }
  icmp.checksum = changed(icmp.checksum, part_before, sum(part));
  readdress(frame, m, to.outer);
}

}  // namespace sluice::wire
