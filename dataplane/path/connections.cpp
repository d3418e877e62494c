// SPDX-License-Identifier: Apache-2.0
// Stage 2 of the path: the packets of a service's address find their connection and are
// rewritten for its backend. Those that find none: newcomers.cpp.
//
// Handles of the table hold until the first insert. So all packets with a connection
// come first; then the newcomers, whose memory was fetched meanwhile.
#include "dataplane/packet/tcp_options.hpp"
#include "dataplane/path/hit_table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "dataplane/path/ready.hpp"

namespace sluice {

using abi::connection_state;
using abi::connection_word;
using abi::counter_id;
using connection::step;

// send() rewrites any packet for any backend.
[[gnu::noinline]] void packet_path::send(std::size_t i, abi::backend_ref ref) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const abi::backend_row& row = *view_.backend_at(ref.index());
  const hop_words to = hop_words::of(row);
  p.service = static_cast<abi::service_id>(to.service());
  p.backend = ref;
  if (!to.has(abi::backend_has_next_hop) || to.out_port() >= port_count_)
    return drop(p, counter_id::drop_no_next_hop);
  if (to.mode() == abi::forward_mode::nat || to.mode() == abi::forward_mode::full_nat)
    return translate(i, ref, row, to);
  std::byte* const l4 = p.data + m.l4;  // rewriting leaves it where it is
  const std::uint32_t available = std::min(p.length, std::uint32_t{m.l3} + m.ip_length) - m.l4;
  const counter_id failed = rewrite(p, m, to, row, view_.header(), port_macs_[to.out_port()],
                                    [this, i] { return flow_hash(i); });
  if (failed == counter_id::drop_too_big)
    return too_big(i, to.mtu(), added_by(to.mode(), row.address));
  if (failed != rewritten) return drop(p, failed);
  if ((m.tcp_flags & connection::tcp_syn) != 0) clamp_mss(p.service, l4, available);
  count_sent(i, ref, to.service(), to.out_port());
}

// clamp_mss() lowers the MSS of a SYN, whose TCP header is at `l4`, where its service asks for
// it. Only of one that is sent: what is dropped stays as it came, and so does its quote.
void packet_path::clamp_mss(abi::service_id service, std::byte* l4,
                            std::uint32_t available) noexcept {
  const abi::service_row* s = view_.service(service);
  if (s == nullptr || s->mss_clamp == 0) return;
  if (wire::clamp_mss(l4, available, s->mss_clamp)) count(counter_id::mss_clamped);
}

// make_egress() prepares what hit() writes for a backend whose row has been checked.
void packet_path::make_egress(std::uint64_t tag, abi::backend_ref ref,
                              const abi::backend_row& row) noexcept {
  egress& e = egress_of(ref);
  const hop_words to = hop_words::of(row);
  const abi::encap_source& source = view_.header().source4;
  e.tag = tag;
  e.how = egress::way::other;
  e.limit = 0;
  e.service = to.service();
  e.out_port = to.out_port();
  if (!to.has(abi::backend_has_next_hop) || to.out_port() >= port_count_) return;
  e.limit = to.mtu();
  std::array<std::byte, 20> bytes;
  wire::write_ethernet(bytes.data(), to.next_hop(), port_macs_[to.out_port()], ether_type::ipv4);
  std::memcpy(&e.ethernet[0], bytes.data(), 8);
  std::memcpy(&e.ethernet[1], bytes.data() + 6, 8);
  if (to.mode() == abi::forward_mode::dsr_l2) {
    e.how = egress::way::dsr_l2;
  } else if (to.mode() == abi::forward_mode::ipip && detail::is_v4(row.address) &&
             source.configured != 0 && source.prefix >= 32 && to.mtu() >= bytes.size()) {
    e.how = egress::way::ipip4;
    e.limit = to.mtu() - static_cast<std::uint32_t>(bytes.size());
    wire::make_outer4(bytes.data(), 0, ip_proto::ipip, 0, source.base.v4_raw(),
                      row.address.v4_raw());
    // Length and checksum are the packet's.
    bytes[2] = bytes[3] = bytes[10] = bytes[11] = std::byte{0};
    std::memcpy(e.outer, bytes.data(), 16);
    std::memcpy(&e.destination, bytes.data() + 16, 4);
    e.sum = wire::fold(wire::sum(bytes));
  } else if (to.mode() == abi::forward_mode::ipip && !detail::is_v4(row.address) &&
             view_.header().source6.configured != 0 && view_.header().source6.prefix >= 128 &&
             to.mtu() >= sizeof(wire::ipv6_header)) {
    e.how = egress::way::ipip6;
    e.limit = to.mtu() - static_cast<std::uint32_t>(sizeof(wire::ipv6_header));
    wire::write_ethernet(bytes.data(), to.next_hop(), port_macs_[to.out_port()], ether_type::ipv6);
    std::memcpy(&e.ethernet[1], bytes.data() + 6, 8);
    std::memcpy(e.outer, &row.address, sizeof e.outer);
  }
}

// hit() sends a packet of a connection in the table to the connection's backend.
template <class Family>
[[gnu::always_inline]] inline void packet_path::hit(connection::flow_map<Family>& map,
                                                    connection::handle found,
                                                    std::size_t i) noexcept {
  const connection_word w = *found;
  const wire::parsed& m = parsed_[i];
  const egress& e = egress_of(w.backend());
  if (e.tag != ((w.value & target_mask) | generation_tag_) ||
      (m.tcp_flags & connection::tcp_syn) != 0) [[unlikely]]
    return hit_slow(map, found, i, false);
  const connection::transition next = hit_transitions[static_cast<std::size_t>(w.state()) & 7u]
                                                     [m.tcp_flags & (flag_combinations - 1)];
  // Mostly nothing changes: the entry was seen this second, in this state.
  constexpr std::uint64_t mask = (std::uint64_t{0xffff} << connection_word::time_shift) |
                                 (std::uint64_t{0xf} << connection_word::state_shift);
  const std::uint64_t stamp = std::uint64_t{now_} << connection_word::time_shift |
                              static_cast<std::uint64_t>(next.next) << connection_word::state_shift;
  if (((w.value ^ stamp) & mask) != 0 && next.step != step::ignore) [[unlikely]]
    map.store(found, {(w.value & ~mask) | stamp});

  send_ready(i, e, w.backend());
}

template <class Family>
void packet_path::resolve(batch<Family>& b, connection::flow_map<Family>& map) noexcept {
  map.find_bulk(b.keys.data(), b.hashes.data(), b.found.data(), b.size);
  unsigned missing = 0;
  for (unsigned k = 0; k < b.size; ++k) {
    if (b.found[k] != nullptr) [[likely]] {
      __builtin_prefetch(&egress_of(b.found[k]->backend()));
    } else {
      newcomers_[missing++].in_batch = static_cast<std::uint8_t>(k);
    }
  }
  tally_.hits += b.size - missing;
  for (unsigned k = 0; k < b.size; ++k)
    if (b.found[k] != nullptr) [[likely]]
      hit(map, b.found[k], b.at[k]);
  if (missing != 0) resolve_new(b, map, missing);
}

std::uint64_t packet_path::flow_hash(std::size_t i) const noexcept {
  const packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  // A fragment or ICMP packet, sent where its flow goes: 0 for the ports.
  static constexpr wire::udp_header no_ports{};
  const auto& l4 = wire::has_ports(m.kind)
                       ? *reinterpret_cast<const wire::udp_header*>(p.data + m.l4)
                       : no_ports;
  const std::uint64_t seed = view_.header().hash_seed;
  if (m.version == 4) {
    const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
    return sluice_flow_hash4(seed, ip.source.raw(), ip.destination.raw(), l4.source_port.raw(),
                             l4.destination_port.raw(), m.protocol);
  }
  const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3);
  const ip_address source{ip.source};
  const ip_address destination{ip.destination};
  return sluice_flow_hash6(seed, source.high(), source.low(), destination.high(), destination.low(),
                           l4.source_port.raw(), l4.destination_port.raw(), m.protocol);
}

// count_opened() counts a connection that its backend has from now on. anew: it is new to the
// service as well, and has not been moved.
void packet_path::count_opened(abi::backend_ref ref, bool anew) noexcept {
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr) return;
  if (ref.index() < counters_.backend_rows) counters_.backends[ref.index()].opened.add(1);
  if (const auto s = static_cast<std::uint32_t>(row->service); anew && s < counters_.service_rows)
    counters_.services[s].opened.add(1);
}

// count_closed() leaves a row alone that another backend has by now: its sums began anew.
void packet_path::count_closed(abi::backend_ref ref) noexcept {
  if (ref.index() >= counters_.backend_rows) return;
  if (!view_.empty() && view_.backend(ref) == nullptr) return;
  counters_.backends[ref.index()].closed.add(1);
}

template void packet_path::resolve(batch<connection::ipv4>&,
                                   connection::flow_map<connection::ipv4>&) noexcept;
template void packet_path::resolve(batch<connection::ipv6>&,
                                   connection::flow_map<connection::ipv6>&) noexcept;

}  // namespace sluice
