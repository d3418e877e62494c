// SPDX-License-Identifier: Apache-2.0
// Sending a packet to a backend whose egress is ready: nothing of the tables is read.
// For the path's own sources.
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "dataplane/path/packet_path.hpp"

namespace sluice {

// prepended() says that `added` bytes more belong to the untagged frame, in front, and that
// what is behind the IP packet (padding) no longer does.
[[gnu::always_inline]] inline void prepended(packet& p, std::uint32_t ip_length,
                                             std::uint32_t added) noexcept {
  p.data -= added;
  p.headroom = static_cast<std::uint16_t>(p.headroom - added);
  const std::uint32_t total = std::uint32_t{sizeof(wire::ethernet_header)} + added + ip_length;
  const std::uint32_t contiguous = p.length + added;
  p.total_length = total;
  p.length = contiguous < total ? contiguous : total;
}

// roomy_became() is prepended() for a roomy packet.
[[gnu::always_inline]] inline void roomy_became(packet& p, std::byte* frame,
                                                std::uint32_t ip_length,
                                                std::uint32_t added) noexcept {
  p.data = frame;
  p.length = p.total_length = std::uint32_t{sizeof(wire::ethernet_header)} + added + ip_length;
  p.headroom = static_cast<std::uint16_t>(p.headroom - added);
}

// write_outer4() writes what goes in front of an ipip4 packet, from `frame` on: the outer
// header's first 8 bytes are the packet's own, the next 8 have its checksum.
[[gnu::always_inline]] inline void packet_path::write_outer4(std::byte* frame, const egress& e,
                                                             std::uint64_t first,
                                                             std::uint64_t second) const noexcept {
  // The last two bytes of the hop's word are written once more.
  std::memcpy(frame, &e.hop, 8);
  std::memcpy(frame + 6, &port_sources4_[e.out_port], 8);
  std::memcpy(frame + 14, &first, 8);
  std::memcpy(frame + 22, &second, 8);
  std::memcpy(frame + 30, &e.address, 4);
}

// send_roomy() is send_ready() for a roomy IPv4 packet (wire::roomy) of ip_length <=
// egress::limit_ipip4.
[[gnu::always_inline]] inline void packet_path::send_roomy(packet& p, std::uint32_t ip_length,
                                                           const outer4& outer,
                                                           abi::backend_ref ref,
                                                           abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  constexpr std::uint32_t added = sizeof(wire::ipv4_header);
  std::byte* const data = p.data;
  std::byte* const frame = data - added;
  std::memcpy(data + sizeof(wire::ethernet_header) + offsetof(wire::ipv4_header, ttl), &outer.lived,
              4);
  const std::uint32_t sum = outer.sum + static_cast<std::uint32_t>(e.hop >> 48);
  const std::uint32_t checksum = ~(sum + std::rotl(sum, 16)) & 0xffff0000u;
  const std::uint64_t second = outer4_begin_ | checksum;
  write_outer4(frame, e, outer.first, second);
  roomy_became(p, frame, ip_length, added);
  count_ready(p, ip_length, ref, line);
}

// The same for an IPv6 packet and an egress that is ipip6, of ip_length <= egress::limit.
[[gnu::always_inline]] inline void packet_path::send_roomy(packet& p, std::uint32_t ip_length,
                                                           std::uint64_t outer,
                                                           abi::backend_ref ref,
                                                           abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  constexpr std::uint32_t added = sizeof(wire::ipv6_header);
  std::byte* const data = p.data;
  std::byte* const frame = data - added;
  wire::decrement_ttl(*reinterpret_cast<wire::ipv6_header*>(data + sizeof(wire::ethernet_header)));
  std::memcpy(frame, &e.hop, 8);
  std::memcpy(frame + 6, &port_sources6_[e.out_port], 8);
  std::memcpy(frame + 14, &outer, 8);
  std::memcpy(frame + 22, &outer6_source_, 16);
  std::memcpy(frame + 38, &outer6_[ref.index()], 16);
  roomy_became(p, frame, ip_length, added);
  count_ready(p, ip_length, ref, line);
}

// into_ipip6() puts an untagged packet into an IPv6 tunnel; Inner is its IP header. False: no
// room before it.
template <class Inner>
[[gnu::always_inline]] inline bool packet_path::into_ipip6(packet& p, std::uint32_t ip_length,
                                                           abi::backend_ref ref,
                                                           const egress& e) noexcept {
  constexpr std::uint32_t added = sizeof(wire::ipv6_header);
  if (p.headroom < added) [[unlikely]]
    return false;
  std::byte* const inner = p.data + sizeof(wire::ethernet_header);
  auto& ip = *reinterpret_cast<Inner*>(inner);
  const auto& ports = *reinterpret_cast<const wire::udp_header*>(inner + sizeof(Inner));
  const std::uint64_t seed = view_.header().hash_seed;
  std::uint8_t tos;
  ip_proto next;
  std::uint64_t hash;
  if constexpr (sizeof(Inner) == sizeof(wire::ipv4_header)) {
    tos = ip.tos;
    next = ip_proto::ipip;
    hash = sluice_flow_hash4(seed, ip.source.raw(), ip.destination.raw(), ports.source_port.raw(),
                             ports.destination_port.raw(), ip.protocol);
  } else {
    tos = ip.traffic_class();
    next = ip_proto::ipv6;
    const ip_address source{ip.source};
    const ip_address destination{ip.destination};
    hash =
        sluice_flow_hash6(seed, source.high(), source.low(), destination.high(), destination.low(),
                          ports.source_port.raw(), ports.destination_port.raw(), ip.next_header);
  }
  wire::decrement_ttl(ip);
  wire::make_outer6(inner - added, ip_length, next, tos, wire::flow_label(hash),
                    view_.header().source6.base, outer6_[ref.index()]);
  wire::write_ethernet(p.data - added, e.hop & wire::mac_mask, port_macs_[e.out_port],
                       ether_type::ipv6);
  prepended(p, ip_length, added);
  return true;
}

// send_prepared() is send_ready() for a packet that is known to be roomy.
template <class Family>
[[gnu::always_inline]] inline bool packet_path::send_prepared(
    const batch<Family>& b, unsigned k, abi::backend_ref ref,
    abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  const std::uint32_t ip_length = wire::length_of(b.commons[k]);
  if constexpr (std::is_same_v<Family, connection::ipv4>) {
    if (ip_length > e.limit_ipip4) return false;
    send_roomy(*b.packets[k], ip_length, outers4_[k], ref, line);
  } else {
    if (ip_length > e.limit || e.how != egress::way::ipip6) return false;
    send_roomy(*b.packets[k], ip_length, outers6_[k], ref, line);
  }
  return true;
}

// send_ready() sends a common packet (wire::parse_common4() or 6) to a backend by its egress,
// and sets all there is to say of it but for the counts of a burst. False: it has done nothing.
template <class Family>
[[gnu::always_inline]] inline bool packet_path::send_ready(packet& p, std::uint32_t ip_length,
                                                           abi::backend_ref ref,
                                                           abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  constexpr bool is_v4 = std::is_same_v<Family, connection::ipv4>;
  std::byte* const inner = p.data + sizeof(wire::ethernet_header);
  constexpr std::uint32_t added = sizeof(wire::ipv4_header);
  // limit_ipip4 says ipip4.
  if (is_v4 && ip_length <= e.limit_ipip4 && p.headroom >= added) [[likely]] {
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(inner);
    wire::decrement_ttl(ip);
    // Version and IHL, TOS: the inner header's own. Length, id 0, DF.
    std::uint16_t start;
    std::memcpy(&start, inner, 2);
    const std::uint32_t length = byte_swap(static_cast<std::uint16_t>(ip_length + added));
    const std::uint32_t sum = start + length + static_cast<std::uint32_t>(e.hop >> 48);
    const auto checksum = static_cast<std::uint16_t>(~((sum + std::rotl(sum, 16)) >> 16));
    const std::uint64_t first = std::uint64_t{start | length << 16} |
                                std::uint64_t{be16{wire::ipv4_header::dont_fragment}.raw()} << 48;
    const std::uint64_t second = outer4_begin_ | std::uint64_t{checksum} << 16;
    std::byte* const frame = p.data - added;
    write_outer4(frame, e, first, second);
    prepended(p, ip_length, added);
  } else if (ip_length > e.limit) {
    return false;
  } else if (e.how == egress::way::dsr_l2) {
    wire::write_macs(p.data, e.hop & wire::mac_mask, port_macs_[e.out_port]);
  } else if (e.how == egress::way::ipip6) {
    if (!into_ipip6<std::conditional_t<is_v4, wire::ipv4_header, wire::ipv6_header>>(p, ip_length,
                                                                                     ref, e))
      return false;
  } else {
    return false;
  }
  count_ready(p, ip_length, ref, line);
  return true;
}

[[gnu::always_inline]] inline void packet_path::count_ready(packet& p, std::uint32_t ip_length,
                                                            abi::backend_ref ref,
                                                            abi::backend_counters& line) noexcept {
  const egress& e = egress_in(line);
  p.backend = ref;
  std::memcpy(reinterpret_cast<std::byte*>(&p) + offsetof(packet, service), &e.service, 8);
  abi::service_counters& s = counters_.services[e.service];
  s.packets.add(1);
  s.bytes.add(ip_length);
  line.packets.add(1);
  line.bytes.add(ip_length);
}

}  // namespace sluice
