// SPDX-License-Identifier: Apache-2.0
// From a frame to what the packet path needs to know about it. Pure: bytes in, struct out.
//
// parse_common() takes the frame that nearly all traffic is made of (untagged, IPv4
// without options, TCP or UDP, nothing wrong) with one branch, parse_common6() that of
// IPv6; parse_any() takes everything, checks in protocol order, and names what is wrong.
//
// A fault does not mean a drop: whether the packet is ours to judge depends on its
// destination, so that is read whenever it can be.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

enum class parse_kind : std::uint8_t {
  flow,            // a whole TCP or UDP packet without fault: all fields are set
  first_fragment,  // of TCP or UDP, with its ports: all fields are set
  fragment,        // without ports, or of another protocol: nothing at l4 can be read
  other,           // a whole IP packet of another protocol: addresses are readable
  fault,           // IP, addresses are readable, `fault` says what is wrong
  unreadable,      // IP, but the addresses are missing or not to be trusted; see `fault`
  not_ip,          // other ether_type, or more than max_vlan_tags tags
  group_frame,     // Ethernet broadcast or multicast: not forwarded (RFC 1812 section 5.3.4)
};

struct parsed {
  parse_kind kind;
  std::uint8_t version;     // 4, 6; 0 when not IP
  std::uint8_t protocol;    // ip_proto of the last header reached
  std::uint8_t tcp_flags;   // 0 for UDP
  std::uint16_t l3;         // offset of the IP header from the frame's start
  std::uint16_t l4;         // offset of the TCP or UDP header; other: of what follows IP
  std::uint32_t ip_length;  // bytes of the IP packet, its header included
  abi::counter_id fault;
  std::uint16_t fragment_at;  // first_fragment, fragment: IPv6: offset of the fragment header
};
static_assert(sizeof(parsed) == 16);

// has_ports() tells whether there are two ports at l4.
constexpr bool has_ports(parse_kind kind) noexcept {
  return kind == parse_kind::flow || kind == parse_kind::first_fragment;
}

namespace detail {

// First octets of sources at which parse_any() looks closer: 0/8, 127/8, 224/3.
inline constexpr std::array<bool, 256> odd_source = [] {
  std::array<bool, 256> odd{};
  for (std::size_t i = 0; i < odd.size(); ++i) odd[i] = i == 0 || i == 127 || i >= 224;
  return odd;
}();

}  // namespace detail

// destination_of() and hop_limit_of() read the IP header that a packet was found to have;
// Packet has `data`, the frame's first byte.
template <class Packet>
[[nodiscard]] ip_address destination_of(const Packet& p, const parsed& m) noexcept {
  if (m.version == 4)
    return ip_address::v4(reinterpret_cast<const ipv4_header*>(p.data + m.l3)->destination);
  return ip_address::v6(reinterpret_cast<const ipv6_header*>(p.data + m.l3)->destination);
}
template <class Packet>
[[nodiscard]] unsigned hop_limit_of(const Packet& p, const parsed& m) noexcept {
  return m.version == 4 ? reinterpret_cast<const ipv4_header*>(p.data + m.l3)->ttl
                        : reinterpret_cast<const ipv6_header*>(p.data + m.l3)->hop_limit;
}

// What parse_common() needs in the first segment: Ethernet, IPv4, TCP.
inline constexpr std::uint32_t common_length = 14 + 20 + 20;

// parse_any() reads no more than `length` bytes at `frame`; total_length is the whole
// frame's. Ethernet padding behind the IP packet is fine.
[[nodiscard]] parsed parse_any(const std::byte* frame, std::uint32_t length,
                               std::uint32_t total_length) noexcept;

// parse_common() fills `out` and returns true for the common frame, which has at least
// common_length contiguous bytes; false: ask parse_any(). Each test is a branch that is
// never taken (one fused instruction; adding the outcomes up instead took twice as many).
[[gnu::always_inline]] inline bool parse_common(const std::byte* frame, std::uint32_t total_length,
                                                parsed& out) noexcept {
  static_assert(std::endian::native == std::endian::little);
  const std::byte* const ip = frame + sizeof(ethernet_header);
  // The IPv4 header as memory words: version and IHL, TOS, length, id, fragment; TTL,
  // protocol, checksum, source; destination.
  std::uint16_t type;
  std::uint64_t first;
  std::uint64_t second;
  std::uint32_t destination;
  std::memcpy(&type, frame + 12, 2);
  std::memcpy(&first, ip, 8);
  std::memcpy(&second, ip + 8, 8);
  std::memcpy(&destination, ip + 16, 4);

  if ((static_cast<unsigned>(frame[0]) & 1u) != 0) return false;
  if (type != be16{static_cast<std::uint16_t>(ether_type::ipv4)}.raw()) return false;
  // Version 4, IHL 5, neither MF nor an offset.
  if ((first & 0xff3f0000000000ff) != 0x45) return false;
  const std::uint32_t ip_length = byte_swap(static_cast<std::uint16_t>(first >> 16));
  if (ip_length > total_length - sizeof(ethernet_header)) return false;
  if ((second & 0xff) <= 1) return false;  // TTL
  const auto source = static_cast<std::uint32_t>(second >> 32);
  if (detail::odd_source[source & 0xff]) return false;
  if (source == destination) return false;
  if (fold(add(add(first, second), destination)) != 0xffff) return false;

  const std::byte* const l4 = ip + sizeof(ipv4_header);
  const auto protocol = static_cast<std::uint8_t>(second >> 8);
  std::uint8_t flags = 0;
  if (protocol == static_cast<std::uint8_t>(ip_proto::tcp)) {
    const auto& tcp = *reinterpret_cast<const tcp_header*>(l4);
    if (tcp.data_offset < 5 << 4 || ip_length < sizeof(ipv4_header) + tcp.header_length())
      return false;
    flags = tcp.flags;
  } else if (protocol == static_cast<std::uint8_t>(ip_proto::udp)) {
    const std::uint32_t length = reinterpret_cast<const udp_header*>(l4)->length.host();
    if (length < sizeof(udp_header) || ip_length < sizeof(ipv4_header) + length) return false;
  } else {
    return false;
  }
  out.kind = parse_kind::flow;
  out.version = 4;
  out.protocol = protocol;
  out.tcp_flags = flags;
  out.l3 = sizeof(ethernet_header);
  out.l4 = sizeof(ethernet_header) + sizeof(ipv4_header);
  out.ip_length = ip_length;
  return true;
}

// parse_common6() is the same for IPv6: untagged, no extension headers, at least
// common6_length contiguous bytes.
inline constexpr std::uint32_t common6_length = 14 + 40 + 20;
[[gnu::always_inline]] inline bool parse_common6(const std::byte* frame, std::uint32_t total_length,
                                                 parsed& out) noexcept {
  const std::byte* const start = frame + sizeof(ethernet_header);
  const auto& ip = *reinterpret_cast<const ipv6_header*>(start);
  std::uint16_t type;
  std::memcpy(&type, frame + 12, 2);
  std::uint64_t source[2];
  std::uint64_t destination[2];
  std::memcpy(source, &ip.source, 16);
  std::memcpy(destination, &ip.destination, 16);
  if ((static_cast<unsigned>(frame[0]) & 1u) != 0) return false;
  if (type != be16{static_cast<std::uint16_t>(ether_type::ipv6)}.raw()) return false;
  if ((static_cast<unsigned>(start[0]) & 0xf0) != 0x60) return false;
  const std::uint32_t l4_length = ip.payload_length.host();
  const std::uint32_t ip_length = std::uint32_t{sizeof(ipv6_header)} + l4_length;
  if (ip_length > total_length - sizeof(ethernet_header)) return false;
  if (ip.hop_limit <= 1) return false;
  // All addresses that parse_any() looks closer at but for multicast begin with 8 zero bytes.
  if (source[0] == 0 || destination[0] == 0 || (source[0] & 0xff) == 0xff) return false;
  if (((source[0] ^ destination[0]) | (source[1] ^ destination[1])) == 0) return false;

  const std::byte* const l4 = start + sizeof(ipv6_header);
  const std::uint8_t protocol = ip.next_header;
  std::uint8_t flags = 0;
  if (protocol == static_cast<std::uint8_t>(ip_proto::tcp)) {
    const auto& tcp = *reinterpret_cast<const tcp_header*>(l4);
    if (tcp.data_offset < 5 << 4 || l4_length < tcp.header_length()) return false;
    flags = tcp.flags;
  } else if (protocol == static_cast<std::uint8_t>(ip_proto::udp)) {
    const std::uint32_t length = reinterpret_cast<const udp_header*>(l4)->length.host();
    if (length < sizeof(udp_header) || l4_length < length) return false;
  } else {
    return false;
  }
  out.kind = parse_kind::flow;
  out.version = 6;
  out.protocol = protocol;
  out.tcp_flags = flags;
  out.l3 = sizeof(ethernet_header);
  out.l4 = sizeof(ethernet_header) + sizeof(ipv6_header);
  out.ip_length = ip_length;
  return true;
}

}  // namespace sluice::wire
