// SPDX-License-Identifier: Apache-2.0
// From a frame to what the packet path needs to know about it. Pure: bytes in, struct out.
//
// parse_common4() and parse_common6() take the frames that nearly all traffic is made of
// (untagged, no options or extension headers, TCP or UDP, nothing wrong); parse_any() takes
// everything, checks in protocol order, and names what is wrong.
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

// parse_any() reads no more than `length` bytes at `frame`; total_length is the whole
// frame's. Ethernet padding behind the IP packet is fine.
[[nodiscard]] parsed parse_any(const std::byte* frame, std::uint32_t length,
                               std::uint32_t total_length) noexcept;

// common: what there is to know of a common frame in 32 bits: IP length 20, TCP flags 8 (0 for
// UDP), spare 1, roomy 1, protocol 2 (1: TCP, 2: UDP). 0: not a common frame. Roomy: its IP packet
// is in the first segment, and before that are roomy_headroom bytes at least. Not every roomy one
// is said to be.
using common = std::uint32_t;
inline constexpr common roomy = 4;
inline constexpr std::uint32_t roomy_headroom = sizeof(ipv6_header);
inline constexpr unsigned common_flags_shift = 4;
constexpr std::uint32_t length_of(common c) noexcept {
  return c >> 12;
}
constexpr std::uint8_t flags_of(common c) noexcept {
  return static_cast<std::uint8_t>(c >> common_flags_shift);
}
constexpr std::uint8_t protocol_of(common c) noexcept {
  return static_cast<std::uint8_t>((c & 1) != 0 ? ip_proto::tcp : ip_proto::udp);
}
constexpr common make_common(std::uint32_t ip_length, std::uint8_t flags, bool tcp) noexcept {
  return (ip_length << 12) + (std::uint32_t{flags} << common_flags_shift) + (tcp ? 1u : 2u);
}

// spelled_out() is what parse_any() says of a common frame.
constexpr parsed spelled_out(common c, std::uint8_t version) noexcept {
  parsed m{};
  m.kind = parse_kind::flow;
  m.version = version;
  m.protocol = protocol_of(c);
  m.tcp_flags = flags_of(c);
  m.l3 = sizeof(ethernet_header);
  m.l4 =
      static_cast<std::uint16_t>(m.l3 + (version == 4 ? sizeof(ipv4_header) : sizeof(ipv6_header)));
  m.ip_length = length_of(c);
  return m;
}

// What parse_common4() and 6 need in the first segment: Ethernet, IP, TCP.
inline constexpr std::uint32_t common4_length = 14 + 20 + 20;
inline constexpr std::uint32_t common6_length = 14 + 40 + 20;

namespace detail {

// l4_of_common() checks TCP or UDP at l4, of which `length` bytes are there (below 0: the IP
// length was a lie). One test per
// branch that is never taken (a fused instruction each; adding the outcomes up took twice as
// many).
[[gnu::always_inline]] inline common l4_of_common(const std::byte* l4, std::uint8_t protocol,
                                                  std::int32_t length,
                                                  std::uint32_t ip_length) noexcept {
  if (protocol == static_cast<std::uint8_t>(ip_proto::tcp)) [[likely]] {
    const auto& tcp = *reinterpret_cast<const tcp_header*>(l4);
    if (tcp.data_offset < 5 << 4) return 0;
    if (length < static_cast<std::int32_t>(tcp.data_offset >> 2 & 0x3cu)) return 0;
    return make_common(ip_length, tcp.flags, true);
  }
  if (protocol != static_cast<std::uint8_t>(ip_proto::udp)) return 0;
  const std::int32_t said = reinterpret_cast<const udp_header*>(l4)->length.host();
  if (said < static_cast<std::int32_t>(sizeof(udp_header)) || length < said) return 0;
  return make_common(ip_length, 0, false);
}

}  // namespace detail

// parse_common4() looks at a frame with at least common4_length contiguous bytes.
[[gnu::always_inline]] inline common parse_common4(const std::byte* frame,
                                                   std::uint32_t total_length) noexcept {
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

  if ((static_cast<unsigned>(frame[0]) & 1u) != 0) return 0;
  if (type != be16{static_cast<std::uint16_t>(ether_type::ipv4)}.raw()) return 0;
  // Version 4, IHL 5, neither MF nor an offset.
  if ((first & 0xff3f0000000000ff) != 0x45) return 0;
  const std::uint32_t ip_length = byte_swap(static_cast<std::uint16_t>(first >> 16));
  if (ip_length > total_length - sizeof(ethernet_header)) return 0;
  if ((second & 0xff) <= 1) return 0;  // TTL
  const auto source = static_cast<std::uint32_t>(second >> 32);
  if (detail::odd_source[source & 0xff]) return 0;
  if (source == destination) return 0;
  if (!sums_to_ones(add(add(first, second), destination))) return 0;
  return detail::l4_of_common(ip + sizeof(ipv4_header), static_cast<std::uint8_t>(second >> 8),
                              static_cast<std::int32_t>(ip_length - sizeof(ipv4_header)),
                              ip_length);
}

// parse_common6() is the same for IPv6: untagged, no extension headers.
[[gnu::always_inline]] inline common parse_common6(const std::byte* frame,
                                                   std::uint32_t total_length) noexcept {
  const std::byte* const start = frame + sizeof(ethernet_header);
  const auto& ip = *reinterpret_cast<const ipv6_header*>(start);
  std::uint16_t type;
  std::memcpy(&type, frame + 12, 2);
  std::uint64_t source[2];
  std::uint64_t destination[2];
  std::memcpy(source, &ip.source, 16);
  std::memcpy(destination, &ip.destination, 16);
  if ((static_cast<unsigned>(frame[0]) & 1u) != 0) return 0;
  if (type != be16{static_cast<std::uint16_t>(ether_type::ipv6)}.raw()) return 0;
  if ((static_cast<unsigned>(start[0]) & 0xf0) != 0x60) return 0;
  const std::uint32_t l4_length = ip.payload_length.host();
  const std::uint32_t ip_length = std::uint32_t{sizeof(ipv6_header)} + l4_length;
  if (ip_length > total_length - sizeof(ethernet_header)) return 0;
  if (ip.hop_limit <= 1) return 0;
  // All addresses that parse_any() looks closer at but for multicast begin with 8 zero bytes.
  if (source[0] == 0 || destination[0] == 0 || (source[0] & 0xff) == 0xff) return 0;
  if (((source[0] ^ destination[0]) | (source[1] ^ destination[1])) == 0) return 0;
  return detail::l4_of_common(start + sizeof(ipv6_header), ip.next_header,
                              static_cast<std::int32_t>(l4_length), ip_length);
}

}  // namespace sluice::wire
