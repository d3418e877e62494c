// SPDX-License-Identifier: Apache-2.0
// What a forwarding mode writes into the frame. Pure: pointers and values, no mbufs.
//
// dsr-l2  MAC addresses only. The IP packet is delivered, not routed: the backend owns
//         the VIP, so the TTL stays, and so does padding.
// ipip    4in4 (RFC 2003), 6in6 and 4in6 (RFC 2473), 6in4 (RFC 4213). We are the hop
//         that enters the tunnel: the inner TTL or hop limit goes down by one (RFC 2003
//         section 3.1), nothing else of the inner packet changes. Outer: TTL 64; DSCP
//         and ECN copied from the inner (RFC 2983 uniform model, RFC 6040 normal mode);
//         IPv4 with DF set and id 0 (an atomic datagram, RFC 6864 section 4.1: we never
//         fragment); IPv6 with a flow label from the flow (RFC 6438) and without the
//         encapsulation limit option (RFC 2473 section 4.1.1 leaves it to the tunnel).
// gre     as ipip, with the four bytes of RFC 2784 in between: no checksum, no key.
// gue     as ipip, with UDP in between and nothing else: GUE variant 1 (draft-ietf-intarea-
//         gue section 4), which is also Linux's fou and what Katran sends. The first four
//         bits of the payload say what it is (4: IPv4, 6: IPv6). Variant 0 would add 4 bytes
//         that say no more: no option of it is of use here. Source port: 49152 + 14 bits of
//         the flow hash (the dynamic range of RFC 6335, as RFC 8086 section 3.2.1 has it),
//         so that ECMP and RSS on the way spread the tunnel. No UDP checksum: the inner
//         packet carries its own, and summing the payload would be the most expensive thing
//         that happens to it. Over IPv6 that needs a receiver that allows it (RFC 6935;
//         RFC 6936 section 4: the misdelivered packet is found by the inner checksums, whose
//         pseudo header names the VIP): bpf/decap.bpf.c does, Linux fou with udp6-csum-rx off.
//
// VLAN tags stay as they came: the frame goes out with the tags it came in with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

inline constexpr std::uint8_t outer_ttl = 64;

// outer_source4() and outer_source6(): the tunnel's source for a flow. Host bits beyond
// the prefix come from the low half of the flow hash (the slot uses the high half), so
// that one tunnel spreads over the queues of the backend's NIC. The first and last host
// of an IPv4 prefix (network, broadcast) and the first of an IPv6 prefix (subnet-router
// anycast, RFC 4291 section 2.6.1) are left out. At most 32 bits of an IPv6 address vary.
inline be32 outer_source4(const abi::encap_source& source, std::uint64_t flow_hash) noexcept {
  const unsigned bits = source.prefix < 32 ? 32u - source.prefix : 0u;
  const std::uint32_t base = source.base.v4_raw().host();
  if (bits == 0) return be32{base};
  const std::uint64_t random = flow_hash & 0xffffffff;
  const std::uint64_t hosts = std::uint64_t{1} << bits;
  const std::uint64_t host = bits == 1 ? random >> 31 : 1 + ((random * (hosts - 2)) >> 32);
  return be32{(base & static_cast<std::uint32_t>(~(hosts - 1))) | static_cast<std::uint32_t>(host)};
}
inline ip_address outer_source6(const abi::encap_source& source, std::uint64_t flow_hash) noexcept {
  ip_address a = source.base;
  const unsigned prefix = source.prefix;
  if (prefix >= 128) return a;
  const unsigned bits = 128 - prefix < 32 ? 128 - prefix : 32;
  const std::uint64_t hosts = std::uint64_t{1} << bits;
  const std::uint64_t host = 1 + (((flow_hash & 0xffffffff) * (hosts - 1)) >> 32);
  std::uint32_t raw;
  std::memcpy(&raw, a.bytes.data() + 12, 4);
  const std::uint32_t low = be32::from_raw(raw).host();
  const std::uint32_t out =
      be32{(low & static_cast<std::uint32_t>(~(hosts - 1))) | static_cast<std::uint32_t>(host)}
          .raw();
  std::memcpy(a.bytes.data() + 12, &out, 4);
  return a;
}

// flow_label() is never 0, which would mean "not labelled" (RFC 6437 section 2).
inline std::uint32_t flow_label(std::uint64_t flow_hash) noexcept {
  const auto label = static_cast<std::uint32_t>(flow_hash) & 0xfffff;
  return label != 0 ? label : 1;
}

// decrement_ttl() keeps the header checksum right (RFC 1624). The TTL is above 1.
inline void decrement_ttl(ipv4_header& ip) noexcept {
  // The word of TTL and protocol loses 0x0100, so the complement of the sum gains it. A
  // result of 0xffff is written as 0: eqn. 3 never gives 0xffff. In one 32-bit word of memory
  // order: TTL, protocol, checksum.
  static_assert(std::endian::native == std::endian::little &&
                offsetof(ipv4_header, checksum) == offsetof(ipv4_header, ttl) + 2);
  std::byte* const at = reinterpret_cast<std::byte*>(&ip) + offsetof(ipv4_header, ttl);
  std::uint32_t word;
  std::memcpy(&word, at, 4);
  const auto carry = static_cast<std::uint32_t>((std::uint64_t{word} + 0x20000) >> 32);
  word += 0xffff + (carry << 16);
  std::memcpy(at, &word, 4);
}
inline void decrement_ttl(ipv6_header& ip) noexcept {
  --ip.hop_limit;
}

// gue_source_port() is in network order, as the header wants it.
inline be16 gue_source_port(std::uint64_t flow_hash) noexcept {
  return be16{static_cast<std::uint16_t>(0xc000 | (flow_hash & 0x3fff))};
}
inline constexpr std::uint16_t default_gue_port = 6080;  // IANA: gue

// make_gre() writes the 4 bytes in front of the inner packet; make_gue() the 8 of UDP in
// front of `inner_length` bytes, with which they are no more than 65535.
inline void make_gre(void* at, ether_type inner) noexcept {
  const std::uint32_t word = be32{static_cast<std::uint32_t>(inner)}.raw();
  std::memcpy(at, &word, 4);
}
inline void make_gue(void* at, std::uint32_t inner_length, be16 source_port,
                     be16 destination_port) noexcept {
  const udp_header h{source_port, destination_port,
                     be16{static_cast<std::uint16_t>(inner_length + sizeof(udp_header))}, be16{}};
  std::memcpy(at, &h, sizeof h);
}

// make_outer4() writes a 20-byte IPv4 header in front of `inner_length` bytes (what lies
// between the headers included), which
// with it are no more than 65535.
inline void make_outer4(void* at, std::uint32_t inner_length, ip_proto inner, std::uint8_t tos,
                        be32 source, be32 destination) noexcept {
  const std::uint32_t length = inner_length + std::uint32_t{sizeof(ipv4_header)};
  // Word by word in memory order.
  static_assert(std::endian::native == std::endian::little);
  const std::uint64_t first = 0x45u | std::uint64_t{tos} << 8 |
                              std::uint64_t{byte_swap(static_cast<std::uint16_t>(length))} << 16 |
                              std::uint64_t{be16{ipv4_header::dont_fragment}.raw()} << 48;
  const std::uint64_t second = std::uint64_t{outer_ttl} |
                               std::uint64_t{static_cast<unsigned>(inner)} << 8 |
                               std::uint64_t{source.raw()} << 32;
  const std::uint32_t third = destination.raw();
  const std::uint64_t sum = std::uint64_t{checksum(add(add(first, second), third)).raw()};
  const std::uint64_t with_sum = second | sum << 16;
  auto* to = static_cast<std::byte*>(at);
  std::memcpy(to, &first, 8);
  std::memcpy(to + 8, &with_sum, 8);
  std::memcpy(to + 16, &third, 4);
}

// make_outer6() writes a 40-byte IPv6 header in front of `inner_length` bytes, no more
// than 65535.
inline void make_outer6(void* at, std::uint32_t inner_length, ip_proto inner,
                        std::uint8_t traffic_class, std::uint32_t label, const ip_address& source,
                        const ip_address& destination) noexcept {
  // Not by way of a struct: gcc puts that together in small pieces on the stack and reads it in
  // large ones, which waits for each of them to leave the store buffer.
  static_assert(sizeof(ipv6_header) == 40 && offsetof(ipv6_header, source) == 8 &&
                offsetof(ipv6_header, destination) == 24);
  const be32 begin{6u << 28 | std::uint32_t{traffic_class} << 20 | label};
  const be16 length{static_cast<std::uint16_t>(inner_length)};
  const std::uint64_t first = std::uint64_t{begin.raw()} | std::uint64_t{length.raw()} << 32 |
                              static_cast<std::uint64_t>(inner) << 48 |
                              std::uint64_t{outer_ttl} << 56;
  auto* const to = static_cast<std::byte*>(at);
  std::memcpy(to, &first, sizeof first);
  std::memcpy(to + 8, &source, 16);
  std::memcpy(to + 24, &destination, 16);
}

// mac_word: a MAC address as the low 48 bits of a memory word, so that an Ethernet header
// is written with two stores.
using mac_word = std::uint64_t;
inline constexpr mac_word mac_mask = 0xffffffffffff;
inline mac_word to_word(const mac_address& mac) noexcept {
  mac_word w = 0;
  std::memcpy(&w, mac.data(), mac.size());
  return w;
}

// write_ethernet() writes 14 bytes.
inline void write_ethernet(std::byte* to, mac_word destination, mac_word source,
                           ether_type type) noexcept {
  static_assert(std::endian::native == std::endian::little);
  const std::uint64_t first = destination | source << 48;
  const std::uint64_t second = source | std::uint64_t{be16{static_cast<std::uint16_t>(type)}.raw()}
                                            << 48;
  std::memcpy(to, &first, 8);
  std::memcpy(to + 6, &second, 8);
}

// write_macs() readdresses the frame in place.
inline void write_macs(std::byte* frame, mac_word destination, mac_word source) noexcept {
  const std::uint64_t first = destination | source << 48;
  const auto second = static_cast<std::uint32_t>(source >> 16);
  std::memcpy(frame, &first, 8);
  std::memcpy(frame + 8, &second, 4);
}

// move_ethernet() writes the Ethernet header of a frame whose IP header is now at
// `to + l3`: addresses, the VLAN tags of the old frame, and the outer packet's type.
// l3 is 14, 18 or 22. `to` may overlap the old frame: it lies at or before it, and the
// old header must still be whole.
inline void move_ethernet(std::byte* to, const std::byte* old, unsigned l3, ether_type type,
                          mac_word destination, mac_word source) noexcept {
  if (l3 == sizeof(ethernet_header)) [[likely]]
    return write_ethernet(to, destination, source, type);
  std::memmove(to + 12, old + 12, l3 - sizeof(ethernet_header));
  write_macs(to, destination, source);
  const std::uint16_t raw = be16{static_cast<std::uint16_t>(type)}.raw();
  std::memcpy(to + l3 - 2, &raw, 2);
}

}  // namespace sluice::wire
