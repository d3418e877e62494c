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
#include "dataplane/packet/readdress.hpp"
#include "dataplane/path/packet.hpp"

namespace sluice {

// rewritten: no drop reason.
inline constexpr abi::counter_id rewritten = abi::counter_id::count_;

// hop_words: the hot half of a backend_row in two memory words. The row is shared memory:
// each is read once, so that what was checked is what is used.
struct hop_words {
  std::uint64_t hop;   // next_hop 48 bits | out_port 8 | flags 8
  std::uint64_t what;  // service 16 | incarnation 8 | mode 8 | mtu 16 | port 16

  static hop_words of(const abi::backend_row& row) noexcept {
    static_assert(
        offsetof(abi::backend_row, next_hop) == 16 && offsetof(abi::backend_row, out_port) == 22 &&
        offsetof(abi::backend_row, flags) == 23 && offsetof(abi::backend_row, service) == 24 &&
        offsetof(abi::backend_row, incarnation) == 26 && offsetof(abi::backend_row, mode) == 27 &&
        offsetof(abi::backend_row, mtu) == 28 && offsetof(abi::backend_row, port) == 30 &&
        std::endian::native == std::endian::little);
    hop_words w;
    std::memcpy(&w.hop, reinterpret_cast<const std::byte*>(&row) + 16, 8);
    std::memcpy(&w.what, reinterpret_cast<const std::byte*>(&row) + 24, 8);
    return w;
  }
  [[nodiscard]] wire::mac_word next_hop() const noexcept { return hop & wire::mac_mask; }
  [[nodiscard]] std::uint8_t out_port() const noexcept {
    return static_cast<std::uint8_t>(hop >> 48);
  }
  // has() tells whether all of these backend_flags are set.
  [[nodiscard]] bool has(std::uint64_t flags) const noexcept {
    return ((hop >> 56) & flags) == flags;
  }
  [[nodiscard]] std::uint16_t service() const noexcept { return static_cast<std::uint16_t>(what); }
  [[nodiscard]] std::uint8_t incarnation() const noexcept {
    return static_cast<std::uint8_t>(what >> 16);
  }
  [[nodiscard]] abi::forward_mode mode() const noexcept {
    return static_cast<abi::forward_mode>(what >> 24);
  }
  // port() is 0 when the packet's own stays.
  [[nodiscard]] std::uint16_t port() const noexcept {
    return static_cast<std::uint16_t>(what >> 48);
  }
  // mtu() is 65535, what an IP header can say at most, when the row's is 0 (not known).
  [[nodiscard]] std::uint32_t mtu() const noexcept {
    const auto m = static_cast<std::uint16_t>(what >> 32);
    return m != 0 ? m : 65535u;
  }
};

namespace detail {

inline bool is_v4(const ip_address& a) noexcept {
  return a.high() == 0 && (a.low() & 0xffffffff) == be64{0x0000ffff00000000}.raw();
}

// between() is how many bytes a tunnel has between its outer header and the inner packet.
constexpr std::uint32_t between(abi::forward_mode tunnel) noexcept {
  if (tunnel == abi::forward_mode::gue) return sizeof(wire::udp_header);
  return tunnel == abi::forward_mode::gre ? 4 : 0;
}

// encapsulate() puts an outer header of type Outer (wire::ipv4_header, ipv6_header), what the
// tunnel has behind it, and a new Ethernet header in front of the IP packet.
template <abi::forward_mode Tunnel, class Outer, class HashFn>
[[gnu::always_inline]] inline abi::counter_id encapsulate(packet& p, const wire::parsed& m,
                                                          hop_words to, const ip_address& backend,
                                                          const abi::encap_source& source,
                                                          be16 gue_port, wire::mac_word port_mac,
                                                          HashFn&& flow_hash) noexcept {
  using enum abi::forward_mode;
  constexpr bool outer_is_v4 = sizeof(Outer) == sizeof(wire::ipv4_header);
  constexpr std::uint32_t shim = between(Tunnel);
  constexpr std::uint32_t added = sizeof(Outer) + shim;
  if (m.ip_length + added > to.mtu()) [[unlikely]]
    return abi::counter_id::drop_too_big;
  if (p.headroom < added) [[unlikely]]
    return abi::counter_id::drop_no_headroom;
  if (source.configured == 0) [[unlikely]]
    return abi::counter_id::drop_bad_table;

  std::byte* const old = p.data;
  std::byte* const inner = old + m.l3;
  std::uint8_t tos;
  if (m.version == 4) {
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(inner);
    wire::decrement_ttl(ip);
    tos = ip.tos;
  } else {
    auto& ip = *reinterpret_cast<wire::ipv6_header*>(inner);
    wire::decrement_ttl(ip);
    tos = ip.traffic_class();
  }
  const ip_proto next = Tunnel == gue    ? ip_proto::udp
                        : Tunnel == gre  ? ip_proto::gre
                        : m.version == 4 ? ip_proto::ipip
                                         : ip_proto::ipv6;
  // First the Ethernet header: the outer one will lie where the VLAN tags are.
  // flow_hash() still reads through p.data.
  wire::move_ethernet(old - added, old, m.l3, outer_is_v4 ? ether_type::ipv4 : ether_type::ipv6,
                      to.next_hop(), port_mac);
  const std::uint64_t hash = !outer_is_v4 || Tunnel == gue || source.prefix < 32 ? flow_hash() : 0;
  if constexpr (Tunnel == gue)
    wire::make_gue(inner - shim, m.ip_length, wire::gue_source_port(hash), gue_port);
  if constexpr (Tunnel == gre)
    wire::make_gre(inner - shim, m.version == 4 ? ether_type::ipv4 : ether_type::ipv6);
  if constexpr (outer_is_v4) {
    wire::make_outer4(inner - added, m.ip_length + shim, next, tos,
                      wire::outer_source4(source, hash), backend.v4_raw());
  } else {
    wire::make_outer6(inner - added, m.ip_length + shim, next, tos, wire::flow_label(hash),
                      wire::outer_source6(source, hash), backend);
  }
  p.data = old - added;
  p.headroom = static_cast<std::uint16_t>(p.headroom - added);
  // What is behind the IP packet is Ethernet padding, no longer needed.
  const std::uint32_t total = m.l3 + added + m.ip_length;
  const std::uint32_t contiguous = p.length + added;
  p.total_length = total;
  p.length = contiguous < total ? contiguous : total;
  return rewritten;
}

// into_tunnel() is encapsulate() over the outer family that the backend's address has.
template <abi::forward_mode Tunnel, class HashFn>
inline abi::counter_id into_tunnel(packet& p, const wire::parsed& m, hop_words to,
                                   const ip_address& backend, const abi::generation_header& config,
                                   wire::mac_word port_mac, HashFn&& flow_hash) noexcept {
  const be16 port{config.gue_port != 0 ? config.gue_port : wire::default_gue_port};
  if (is_v4(backend))
    return encapsulate<Tunnel, wire::ipv4_header>(p, m, to, backend, config.source4, port, port_mac,
                                                  flow_hash);
  return encapsulate<Tunnel, wire::ipv6_header>(p, m, to, backend, config.source6, port, port_mac,
                                                flow_hash);
}

// mark_for() sends the packet itself to the backend, with the DSCP that stands for the VIP.
inline abi::counter_id mark_for(packet& p, const wire::parsed& m, hop_words to,
                                const ip_address& backend, std::uint8_t dscp,
                                wire::mac_word port_mac) noexcept {
  if (is_v4(backend) != (m.version == 4) || dscp > 63) [[unlikely]]
    return abi::counter_id::drop_bad_table;
  if (m.ip_length > to.mtu()) [[unlikely]]
    return abi::counter_id::drop_too_big;
  wire::flow_ends ends = wire::ends_of(p.data, m);
  ends.destination = backend;
  wire::readdress(p.data, m, ends);
  wire::route(p.data, m);
  if (m.version == 4) {
    wire::set_dscp(*reinterpret_cast<wire::ipv4_header*>(p.data + m.l3), dscp);
  } else {
    wire::set_dscp(*reinterpret_cast<wire::ipv6_header*>(p.data + m.l3), dscp);
  }
  wire::write_macs(p.data, to.next_hop(), port_mac);
  return rewritten;
}

}  // namespace detail

// added_by() returns the bytes that a mode puts in front of the IP packet.
inline std::uint32_t added_by(abi::forward_mode mode, const ip_address& backend) noexcept {
  using enum abi::forward_mode;
  if (mode != ipip && mode != gue && mode != gre) return 0;
  return detail::between(mode) + (detail::is_v4(backend)
                                      ? std::uint32_t{sizeof(wire::ipv4_header)}
                                      : std::uint32_t{sizeof(wire::ipv6_header)});
}

// rewrite() changes the packet in place, or returns why it cannot and leaves it alone.
// `to` is the row's; its out_port has been checked, port_mac is that port's. flow_hash()
// is asked only where the flow decides on a field.
template <class HashFn>
[[gnu::always_inline]] inline abi::counter_id rewrite(packet& p, const wire::parsed& m,
                                                      hop_words to, const abi::backend_row& row,
                                                      const abi::generation_header& config,
                                                      wire::mac_word port_mac,
                                                      HashFn&& flow_hash) noexcept {
  using enum abi::forward_mode;
  const ip_address backend = row.address;
  switch (to.mode()) {
    case ipip:
      return detail::into_tunnel<ipip>(p, m, to, backend, config, port_mac, flow_hash);
    case gue:
      return detail::into_tunnel<gue>(p, m, to, backend, config, port_mac, flow_hash);
    case gre:
      return detail::into_tunnel<gre>(p, m, to, backend, config, port_mac, flow_hash);
    case dsr_l2:
      if (m.ip_length > to.mtu()) [[unlikely]]
        return abi::counter_id::drop_too_big;
      wire::write_macs(p.data, to.next_hop(), port_mac);
      return rewritten;
    case dsr_dscp:
      return detail::mark_for(p, m, to, backend, row.dscp, port_mac);
    default:
      return abi::counter_id::drop_bad_table;
  }
}

}  // namespace sluice
