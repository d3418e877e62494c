// SPDX-License-Identifier: Apache-2.0
// From a frame to what the packet path needs to know about it. Pure: bytes in, struct out.
//
// parse_common() takes the frame that nearly all traffic is made of (untagged, IPv4
// without options, TCP or UDP, nothing wrong) with one branch; parse_any() takes
// everything, checks in protocol order, and names what is wrong.
//
// A fault does not mean a drop: whether the packet is ours to judge depends on its
// destination, so that is read whenever it can be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

enum class parse_kind : std::uint8_t {
  flow,         // a whole TCP or UDP packet without fault: all fields are set
  other,        // a whole IP packet of another protocol: addresses are readable
  fault,        // IP, addresses are readable, `fault` says what is wrong
  unreadable,   // IP, but the addresses are missing or not to be trusted; see `fault`
  not_ip,       // other ether_type, or more than max_vlan_tags tags
  group_frame,  // Ethernet broadcast or multicast: not forwarded (RFC 1812 section 5.3.4)
};

struct parsed {
  parse_kind kind;
  std::uint8_t version;     // 4, 6; 0 when not IP
  std::uint8_t protocol;    // ip_proto of the last header reached
  std::uint8_t tcp_flags;   // 0 for UDP
  std::uint16_t l3;         // offset of the IP header from the frame's start
  std::uint16_t l4;         // offset of the TCP or UDP header
  std::uint32_t ip_length;  // bytes of the IP packet, its header included
  abi::counter_id fault;
  std::uint16_t reserved0;
};
static_assert(sizeof(parsed) == 16);

// What parse_common() needs in the first segment: Ethernet, IPv4, TCP.
inline constexpr std::uint32_t common_length = 14 + 20 + 20;

// parse_any() reads no more than `length` bytes at `frame`; total_length is the whole
// frame's. Ethernet padding behind the IP packet is fine.
[[nodiscard]] parsed parse_any(const std::byte* frame, std::uint32_t length,
                               std::uint32_t total_length) noexcept;

// parse_common() fills `out` and returns true for the common frame, which has at least
// common_length contiguous bytes; false: ask parse_any(). Tests are ORed, not branched on.
inline bool parse_common(const std::byte* frame, std::uint32_t total_length, parsed& out) noexcept {
  const auto* ip = reinterpret_cast<const ipv4_header*>(frame + sizeof(ethernet_header));
  const auto* tcp = reinterpret_cast<const tcp_header*>(ip + 1);
  const auto* udp = reinterpret_cast<const udp_header*>(ip + 1);

  // Type and version/IHL in one compare: 08 00 45 xx.
  std::uint32_t type_word;
  std::memcpy(&type_word, frame + 12, 4);
  constexpr std::uint32_t expected = be32{0x08004500}.raw();
  constexpr std::uint32_t mask = be32{0xffffff00}.raw();

  const std::uint32_t ip_length = ip->total_length.host();
  const bool is_tcp = ip->protocol == static_cast<std::uint8_t>(ip_proto::tcp);
  const bool is_udp = ip->protocol == static_cast<std::uint8_t>(ip_proto::udp);
  const std::uint32_t l4_length = ip_length - 20;
  // One announced length that has to lie between the header's minimum and l4_length.
  const std::uint32_t announced = is_tcp ? tcp->header_length() : udp->length.host();
  const std::uint32_t minimum = is_tcp ? 20 : 8;
  const auto source_first = static_cast<std::uint8_t>(ip->source.raw() & 0xff);
  static_assert(std::endian::native == std::endian::little);

  unsigned bad = (type_word & mask) != expected;
  bad |= static_cast<unsigned>(frame[0]) & 1u;
  bad |= !(is_tcp | is_udp);
  bad |= ip_length > total_length - sizeof(ethernet_header);
  bad |= ip_length < 20 + 8;
  bad |= announced < minimum;
  bad |= announced > l4_length;
  bad |= (ip->fragment.raw() & be16{0x3fff}.raw()) != 0;
  bad |= ip->ttl <= 1;
  // 0/8, 127/8, 224/3: parse_any() looks closer.
  bad |= source_first >= 224;
  bad |= source_first == 127;
  bad |= source_first == 0;
  bad |= ip->source == ip->destination;
  bad |= !checksum_holds(sum20(ip));
  if (bad != 0) return false;

  out.kind = parse_kind::flow;
  out.version = 4;
  out.protocol = ip->protocol;
  out.tcp_flags = is_tcp ? tcp->flags : std::uint8_t{0};
  out.l3 = sizeof(ethernet_header);
  out.l4 = sizeof(ethernet_header) + sizeof(ipv4_header);
  out.ip_length = ip_length;
  return true;
}

}  // namespace sluice::wire
