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

// hop_words: the hot half of a backend_row in two memory words. The row is shared memory:
// each is read once, so that what was checked is what is used.
struct hop_words {
  std::uint64_t hop;   // next_hop 48 bits | out_port 8 | flags 8
  std::uint64_t what;  // service 16 | incarnation 8 | mode 8 | mtu 16 | reserved

  static hop_words of(const abi::backend_row& row) noexcept {
    static_assert(
        offsetof(abi::backend_row, next_hop) == 16 && offsetof(abi::backend_row, out_port) == 22 &&
        offsetof(abi::backend_row, flags) == 23 && offsetof(abi::backend_row, service) == 24 &&
        offsetof(abi::backend_row, incarnation) == 26 && offsetof(abi::backend_row, mode) == 27 &&
        offsetof(abi::backend_row, mtu) == 28 && std::endian::native == std::endian::little);
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

// encapsulate() puts an outer header of type Outer (wire::ipv4_header, ipv6_header) and a
// new Ethernet header in front of the IP packet.
template <class Outer, class HashFn>
[[gnu::always_inline]] inline abi::counter_id encapsulate(packet& p, const wire::parsed& m,
                                                          hop_words to, const ip_address& backend,
                                                          const abi::encap_source& source,
                                                          wire::mac_word port_mac,
                                                          HashFn&& flow_hash) noexcept {
  constexpr bool outer_is_v4 = sizeof(Outer) == sizeof(wire::ipv4_header);
  constexpr std::uint32_t added = sizeof(Outer);
  if (m.ip_length + added > to.mtu()) [[unlikely]]
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
                      to.next_hop(), port_mac);
  if constexpr (outer_is_v4) {
    const be32 from =
        source.prefix >= 32 ? source.base.v4_raw() : wire::outer_source4(source, flow_hash());
    wire::make_outer4(inner - added, m.ip_length, inner_type, tos, from, backend.v4_raw());
  } else {
    const std::uint64_t hash = flow_hash();
    wire::make_outer6(inner - added, m.ip_length, inner_type, tos, wire::flow_label(hash),
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

}  // namespace detail

// rewrite() changes the packet in place, or returns why it cannot and leaves it alone.
// `to` is the row's; its out_port has been checked, port_mac is that port's. flow_hash()
// is asked only where the flow decides on a field.
template <class HashFn>
[[gnu::always_inline]] inline abi::counter_id rewrite(packet& p, const wire::parsed& m,
                                                      hop_words to, const ip_address& backend,
                                                      const abi::generation_header& config,
                                                      wire::mac_word port_mac,
                                                      HashFn&& flow_hash) noexcept {
  if (to.mode() == abi::forward_mode::ipip) {
    const ip_address address = backend;
    if (detail::is_v4(address))
      return detail::encapsulate<wire::ipv4_header>(p, m, to, address, config.source4, port_mac,
                                                    flow_hash);
    return detail::encapsulate<wire::ipv6_header>(p, m, to, address, config.source6, port_mac,
                                                  flow_hash);
  }
  if (to.mode() == abi::forward_mode::dsr_l2) {
    if (m.ip_length > to.mtu()) [[unlikely]]
      return abi::counter_id::drop_too_big;
    wire::write_macs(p.data, to.next_hop(), port_mac);
    return rewritten;
  }
  return abi::counter_id::drop_bad_table;
}

}  // namespace sluice
