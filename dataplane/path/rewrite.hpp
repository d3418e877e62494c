// SPDX-License-Identifier: Apache-2.0
// Turns a received frame into the frame to a backend, as backend_row::mode says. What is
// written, and by which RFC: dataplane/packet/encapsulate.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/packet/encapsulate.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/path/packet.hpp"

namespace sluice {

// rewritten: no drop reason.
inline constexpr abi::counter_id rewritten = abi::counter_id::count_;

namespace detail {

inline bool is_v4(const ip_address& a) noexcept {
  return a.high() == 0 && (a.low() & 0xffffffff) == be64{0x0000ffff00000000}.raw();
}

// encapsulate() puts an outer header of type Outer (wire::ipv4_header, ipv6_header) and a
// new Ethernet header in front of the IP packet. Source4/6 and hash as for outer_source.
template <class Outer, class HashFn>
abi::counter_id encapsulate(packet& p, const wire::parsed& m, const abi::backend_row& to,
                            const abi::encap_source& source, const mac_address& port_mac,
                            HashFn&& flow_hash) noexcept {
  constexpr bool outer_is_v4 = sizeof(Outer) == sizeof(wire::ipv4_header);
  constexpr std::uint32_t added = sizeof(Outer);
  // MTU 0: not known. 65535 is what both outer headers can say at most.
  const std::uint32_t limit = to.mtu != 0 ? to.mtu : 65535u;
  if (m.ip_length + added > limit) [[unlikely]]
    return abi::counter_id::drop_too_big;
  if (p.headroom < added) [[unlikely]]
    return abi::counter_id::drop_no_headroom;
  if (source.configured == 0) [[unlikely]]
    return abi::counter_id::drop_bad_table;

  std::byte* const old = p.data;
  std::byte* const inner = old + m.l3;
  std::uint8_t tos;
  ip_proto inner_type;
  if (m.version == 4) {
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(inner);
    wire::decrement_ttl(ip);
    tos = ip.tos;
    inner_type = ip_proto::ipip;
  } else {
    auto& ip = *reinterpret_cast<wire::ipv6_header*>(inner);
    wire::decrement_ttl(ip);
    tos = ip.traffic_class();
    inner_type = ip_proto::ipv6;
  }
  // First the Ethernet header: the outer one will lie where the VLAN tags are.
  // flow_hash() still reads through p.data.
  wire::move_ethernet(old - added, old, m.l3, outer_is_v4 ? ether_type::ipv4 : ether_type::ipv6,
                      to.next_hop, port_mac);
  if constexpr (outer_is_v4) {
    const be32 from =
        source.prefix >= 32 ? source.base.v4_raw() : wire::outer_source4(source, flow_hash());
    wire::make_outer4(inner - added, m.ip_length, inner_type, tos, from, to.address.v4_raw());
  } else {
    const std::uint64_t hash = flow_hash();
    wire::make_outer6(inner - added, m.ip_length, inner_type, tos, wire::flow_label(hash),
                      wire::outer_source6(source, hash), to.address);
  }
  p.data = old - added;
  p.headroom = static_cast<std::uint16_t>(p.headroom - added);
  // What is behind the IP packet is Ethernet padding, no longer needed.
  p.total_length = m.l3 + added + m.ip_length;
  const std::uint32_t contiguous = p.length + added;
  p.length = contiguous < p.total_length ? contiguous : p.total_length;
  return rewritten;
}

}  // namespace detail

// rewrite() changes the packet in place, or returns why it cannot and leaves it alone.
// The out_port of the row has been checked, port_mac is that port's. flow_hash() is asked
// only where the flow decides on a field.
template <class HashFn>
abi::counter_id rewrite(packet& p, const wire::parsed& m, const abi::backend_row& to,
                        const abi::generation_header& config, const mac_address& port_mac,
                        HashFn&& flow_hash) noexcept {
  if (to.mode == abi::forward_mode::ipip) {
    if (detail::is_v4(to.address))
      return detail::encapsulate<wire::ipv4_header>(p, m, to, config.source4, port_mac, flow_hash);
    return detail::encapsulate<wire::ipv6_header>(p, m, to, config.source6, port_mac, flow_hash);
  }
  if (to.mode == abi::forward_mode::dsr_l2) {
    if (to.mtu != 0 && m.ip_length > to.mtu) return abi::counter_id::drop_too_big;
    wire::write_macs(p.data, to.next_hop, port_mac);
    return rewritten;
  }
  return abi::counter_id::drop_bad_table;
}

}  // namespace sluice
