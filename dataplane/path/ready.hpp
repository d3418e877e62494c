// SPDX-License-Identifier: Apache-2.0
// Sending a packet to a backend whose egress is ready: nothing of the tables is read.
// For the path's own sources.
#pragma once

#include "dataplane/path/packet_path.hpp"

namespace sluice {

// into_ipip6() puts an untagged packet into an IPv6 tunnel; Inner is its IP header. False: no
// room before it.
template <class Inner>
[[gnu::always_inline]] inline bool packet_path::into_ipip6(std::size_t i,
                                                           const egress& e) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  constexpr std::uint32_t added = sizeof(wire::ipv6_header);
  if (p.headroom < added) [[unlikely]]
    return false;
  const std::uint32_t label = wire::flow_label(flow_hash(i));
  std::byte* const inner = p.data + sizeof(wire::ethernet_header);
  auto& ip = *reinterpret_cast<Inner*>(inner);
  wire::decrement_ttl(ip);
  std::uint8_t tos;
  ip_proto next;
  if constexpr (sizeof(Inner) == sizeof(wire::ipv4_header)) {
    tos = ip.tos;
    next = ip_proto::ipip;
  } else {
    tos = ip.traffic_class();
    next = ip_proto::ipv6;
  }
  ip_address backend;
  std::memcpy(&backend, e.outer, sizeof backend);
  wire::make_outer6(inner - added, m.ip_length, next, tos, label, view_.header().source6.base,
                    backend);
  p.data -= added;
  std::memcpy(p.data, &e.ethernet[0], 8);
  std::memcpy(p.data + 6, &e.ethernet[1], 8);
  p.headroom = static_cast<std::uint16_t>(p.headroom - added);
  const std::uint32_t total = sizeof(wire::ethernet_header) + added + m.ip_length;
  const std::uint32_t contiguous = p.length + added;
  p.total_length = total;
  p.length = contiguous < total ? contiguous : total;
  return true;
}

// send_ready() is send() to a backend by its egress; e is that backend's.
[[gnu::always_inline]] inline void packet_path::send_ready(std::size_t i, const egress& e,
                                                           abi::backend_ref ref) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  if (m.ip_length > e.limit) [[unlikely]]
    return send(i, ref);
  std::byte* data = p.data;
  if (e.how == egress::way::ipip4 && m.version == 4 && m.l3 == sizeof(wire::ethernet_header) &&
      p.headroom >= sizeof(wire::ipv4_header)) {
    constexpr std::uint32_t added = sizeof(wire::ipv4_header);
    std::byte* const inner = data + sizeof(wire::ethernet_header);
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(inner);
    wire::decrement_ttl(ip);
    data -= added;
    std::memcpy(data, &e.ethernet[0], 8);
    std::memcpy(data + 6, &e.ethernet[1], 8);
    // make_outer4() with all but these two words prepared.
    const std::uint32_t tos = std::uint32_t{ip.tos} << 8;
    const std::uint32_t length = byte_swap(static_cast<std::uint16_t>(m.ip_length + added));
    std::uint32_t sum = e.sum + tos + length;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    const std::uint64_t first = e.outer[0] | tos | std::uint64_t{length} << 16;
    const std::uint64_t second = e.outer[1] | std::uint64_t{~sum & 0xffff} << 16;
    std::memcpy(inner - added, &first, 8);
    std::memcpy(inner - added + 8, &second, 8);
    std::memcpy(inner - added + 16, &e.destination, 4);
    p.data = data;
    p.headroom = static_cast<std::uint16_t>(p.headroom - added);
    const std::uint32_t total = sizeof(wire::ethernet_header) + added + m.ip_length;
    const std::uint32_t contiguous = p.length + added;
    p.total_length = total;
    p.length = contiguous < total ? contiguous : total;
  } else if (e.how == egress::way::dsr_l2) {
    std::memcpy(data, &e.ethernet[0], 8);
    std::memcpy(data + 8, reinterpret_cast<const std::byte*>(&e.ethernet[1]) + 2, 4);
  } else if (e.how == egress::way::ipip6 && m.l3 == sizeof(wire::ethernet_header)) {
    if (!(m.version == 6 ? into_ipip6<wire::ipv6_header>(i, e)
                         : into_ipip6<wire::ipv4_header>(i, e)))
      return send(i, ref);
  } else {
    return send(i, ref);
  }
  count_sent(i, ref, e.service, e.out_port);
}

}  // namespace sluice
