// SPDX-License-Identifier: Apache-2.0
// Stage 2 of the path: the packets of a service's address find their connection, or a
// backend and a new connection, and are rewritten.
//
// Handles of the table hold until the first insert. So all packets with a connection
// come first; then the newcomers, whose memory was fetched meanwhile.
#include "dataplane/packet/mss.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::connection_state;
using abi::connection_word;
using abi::counter_id;
using connection::step;

namespace {

constexpr bool is_tcp(const wire::parsed& m) noexcept {
  return m.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
}

// VIP and backend_ref of a connection_word: what an egress is for.
constexpr std::uint64_t target_mask = (std::uint64_t{1} << connection_word::time_shift) - 1;

// The transitions of tcp_next() and udp_next() for an entry that is there, by state and
// the five flags that matter: one load per packet. An entry's state tells TCP from UDP,
// because the VIP's number in its key does.
constexpr unsigned flag_combinations = 32;
using hit_table = std::array<std::array<connection::transition, flag_combinations>, 8>;
constexpr hit_table make_hit_table() {
  hit_table t{};
  for (unsigned s = 0; s < t.size(); ++s) {
    const auto state = static_cast<connection_state>(s);
    const bool udp = state == connection_state::udp_new || state == connection_state::udp;
    for (unsigned f = 0; f < flag_combinations; ++f)
      t[s][f] = udp ? connection::udp_next(state)
                    : connection::tcp_next(state, static_cast<std::uint8_t>(f));
  }
  return t;
}
constexpr hit_table hit_transitions = make_hit_table();

}  // namespace

// count_sent() sets the verdict of a packet that has been rewritten, and counts it.
[[gnu::always_inline]] inline void packet_path::count_sent(std::size_t i, abi::backend_ref ref,
                                                           std::uint16_t service,
                                                           std::uint8_t out_port) noexcept {
  packet& p = burst_[i];
  const std::uint32_t bytes = parsed_[i].ip_length;
  p.service = static_cast<abi::service_id>(service);
  p.backend = ref;
  p.outcome = verdict::forward;
  p.out_port = out_port;
  ++tally_.forwarded;
  if (service < counters_.service_rows) [[likely]] {
    abi::service_counters& c = counters_.services[service];
    c.packets.add(1);
    c.bytes.add(bytes);
  }
  if (ref.index() < counters_.backend_rows) [[likely]] {
    abi::backend_counters& c = counters_.backends[ref.index()];
    c.packets.add(1);
    c.bytes.add(bytes);
  }
}

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
  if ((m.tcp_flags & connection::tcp_syn) != 0) clamp_mss(i);
  const counter_id failed = rewrite(p, m, to, row, view_.header(), port_macs_[to.out_port()],
                                    [this, i] { return flow_hash(i); });
  if (failed == counter_id::drop_too_big)
    return too_big(i, to.mtu(), added_by(to.mode(), row.address));
  if (failed != rewritten) return drop(p, failed);
  count_sent(i, ref, to.service(), to.out_port());
}

// clamp_mss() lowers the MSS of a SYN where its service asks for it.
void packet_path::clamp_mss(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const abi::service_row* s = view_.service(p.service);
  if (s == nullptr || s->mss_clamp == 0 || !is_tcp(m)) return;
  const std::uint32_t end = std::min(p.length, std::uint32_t{m.l3} + m.ip_length);
  if (wire::clamp_mss(p.data + m.l4, end - m.l4, s->mss_clamp)) count(counter_id::mss_clamped);
}

// make_egress() prepares what hit() writes for a backend whose row has been checked.
void packet_path::make_egress(std::uint64_t tag, abi::backend_ref ref,
                              const abi::backend_row& row) noexcept {
  egress& e = egress_[ref.index() % egress_count];
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
  }
}

// hit() sends a packet of a connection in the table to the connection's backend.
template <class Family>
[[gnu::always_inline]] inline void packet_path::hit(connection::flow_map<Family>& map,
                                                    connection::handle found,
                                                    std::size_t i) noexcept {
  const connection_word w = *found;
  const wire::parsed& m = parsed_[i];
  const egress& e = egress_[w.backend().index() % egress_count];
  if (e.tag != ((w.value & target_mask) | generation_tag_) ||
      (m.tcp_flags & connection::tcp_syn) != 0) [[unlikely]]
    return hit_slow(map, found, i);
  const connection::transition next = hit_transitions[static_cast<std::size_t>(w.state()) & 7u]
                                                     [m.tcp_flags & (flag_combinations - 1)];
  // Mostly nothing changes: the entry was seen this second, in this state.
  constexpr std::uint64_t mask = (std::uint64_t{0xffff} << connection_word::time_shift) |
                                 (std::uint64_t{0xf} << connection_word::state_shift);
  const std::uint64_t stamp = std::uint64_t{now_} << connection_word::time_shift |
                              static_cast<std::uint64_t>(next.next) << connection_word::state_shift;
  if (((w.value ^ stamp) & mask) != 0 && next.step != step::ignore) [[unlikely]]
    map.store(found, {(w.value & ~mask) | stamp});

  packet& p = burst_[i];
  if (m.ip_length > e.limit) [[unlikely]]
    return send(i, w.backend());
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
  } else {
    return send(i, w.backend());
  }
  count_sent(i, w.backend(), e.service, e.out_port);
}

template <class Family>
void packet_path::resolve(batch<Family>& b, connection::flow_map<Family>& map) noexcept {
  map.find_bulk(b.keys.data(), b.hashes.data(), b.found.data(), b.size);
  unsigned missing = 0;
  for (unsigned k = 0; k < b.size; ++k) {
    if (b.found[k] != nullptr) [[likely]] {
      __builtin_prefetch(&egress_[b.found[k]->backend().index() % egress_count]);
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

// hit_slow(): as hit(), and the backend may be gone, the row not looked at before in this
// generation, or a SYN may begin a new connection in the old one's place.
template <class Family>
[[gnu::noinline]] void packet_path::hit_slow(connection::flow_map<Family>& map,
                                             connection::handle found, std::size_t i) noexcept {
  const connection_word w = *found;
  const wire::parsed& m = parsed_[i];
  const connection::transition next = hit_transitions[static_cast<std::size_t>(w.state()) & 7u]
                                                     [m.tcp_flags & (flag_combinations - 1)];
  const abi::backend_row* row = kept_backend(w.backend(), *vips_[i]);
  // An entry that has been idle too long and was not swept yet still knows the backend:
  // only a SYN, which says that nothing is to be continued, is not bound by it.
  const bool syn = is_tcp(m) && connection::classify(m.tcp_flags) == connection::segment::syn;
  const bool anew = syn && (next.step == step::renew || map.expired(w, now_));
  if (row != nullptr && !anew) {
    if (next.step != step::ignore) map.store(found, w.with_seen(now_).with_state(next.next));
    make_egress((w.value & target_mask) | generation_tag_, w.backend(), *row);
    return send(i, w.backend());
  }
  const choice to = choose(i);
  if (to.row == nullptr) {
    packet& p = burst_[i];
    if (to.reason == counter_id::drop_no_service_port)
      return leave(p, kernel_reason::no_service_port, to.reason);
    return drop(p, to.reason);
  }
  connection_state state = w.state();
  if (anew) {
    state = connection_state::syn;
    ++tally_.opened;
    ++tally_.closed;
  } else {
    if (next.step != step::ignore) state = next.next;
    ++tally_.moved;
  }
  count_closed(w.backend());
  count_opened(to.ref);
  map.store(found, w.with_backend(to.ref).with_seen(now_).with_state(state));
  send(i, to.ref);
}

// resolve_new() finds a backend for the packets without a connection, and enters those
// that begin one. In steps, each of which fetches what the next one reads.
template <class Family>
[[gnu::noinline]] void packet_path::resolve_new(batch<Family>& b, connection::flow_map<Family>& map,
                                                unsigned count) noexcept {
  unsigned going = 0;
  for (unsigned j = 0; j < count; ++j) {
    const std::uint8_t k = newcomers_[j].in_batch;
    const std::size_t i = b.at[k];
    packet& p = burst_[i];
    const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + parsed_[i].l4);
    const abi::service_row* s = view_.find_service(*vips_[i], l4.destination_port.host());
    if (s == nullptr) {
      leave(p, kernel_reason::no_service_port, counter_id::drop_no_service_port);
      continue;
    }
    p.service = s->self;
    if (s->member_count == 0) {
      drop(p, counter_id::drop_no_backend);
      continue;
    }
    const std::uint16_t* slot = view_.table_slot(*s, sluice_slot(flow_hash(i), s->table_size));
    if (slot == nullptr) {
      drop(p, counter_id::drop_bad_table);
      continue;
    }
    __builtin_prefetch(slot);
    newcomers_[going++] = {s, slot, {}, k};
  }
  for (unsigned j = 0; j < going; ++j) {
    newcomer& c = newcomers_[j];
    c.backend = view_.member(*c.service, *c.slot);
    view_.prefetch_backend(c.backend);
  }
  for (unsigned j = 0; j < going; ++j) {
    const newcomer& c = newcomers_[j];
    const std::size_t i = b.at[c.in_batch];
    packet& p = burst_[i];
    const wire::parsed& m = parsed_[i];
    const choice to = checked(*c.service, c.backend);
    if (to.row == nullptr) {
      drop(p, to.reason);
      continue;
    }
    const connection::transition first =
        is_tcp(m) ? connection::tcp_next(connection_state::free, m.tcp_flags)
                  : connection::udp_next(connection_state::free);
    if (first.step != step::create) {
      send(i, to.ref);
      continue;
    }
    const auto entered = map.insert(b.hashes[c.in_batch], b.keys[c.in_batch],
                                    connection_word::make(vips_[i]->id, to.ref, now_, first.next));
    switch (entered.outcome) {
      case connection::outcome::existing:  // entered by an earlier packet of this burst
        ++tally_.hits;
        hit_slow(map, entered.handle, i);
        continue;
      case connection::outcome::no_room:
        ++tally_.untracked;
        send(i, to.ref);
        continue;
      case connection::outcome::expired:
        ++tally_.expired;
        ++tally_.closed;
        count_closed(entered.old.backend());
        break;
      case connection::outcome::evicted:
        ++tally_.evicted;
        ++tally_.closed;
        count_closed(entered.old.backend());
        break;
      case connection::outcome::inserted:
        break;
    }
    ++tally_.opened;
    count_opened(to.ref);
    send(i, to.ref);
  }
}

// kept_backend() returns the row of a connection's backend, or null if the connection
// must be given another: the backend is removed or down, or the row serves another VIP.
const abi::backend_row* packet_path::kept_backend(abi::backend_ref ref,
                                                  const abi::vip_row& vip) const noexcept {
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr || (row->flags & abi::backend_keeps_connections) == 0) return nullptr;
  const abi::service_row* s = view_.service(row->service);
  return s != nullptr && s->vip == vip.id ? row : nullptr;
}

// checked() is the backend that a service's table names, if the tables agree on it.
packet_path::choice packet_path::checked(const abi::service_row& s,
                                         abi::backend_ref ref) const noexcept {
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr || row->service != s.self) return {nullptr, {}, counter_id::drop_bad_table};
  return {row, ref, {}};
}

packet_path::choice packet_path::choose(std::size_t i) const noexcept {
  packet& p = burst_[i];
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + parsed_[i].l4);
  const abi::service_row* s = view_.find_service(*vips_[i], l4.destination_port.host());
  if (s == nullptr) return {nullptr, {}, counter_id::drop_no_service_port};
  p.service = s->self;
  if (s->member_count == 0) return {nullptr, {}, counter_id::drop_no_backend};
  return checked(*s, view_.choose(*s, flow_hash(i)));
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

void packet_path::count_opened(abi::backend_ref ref) noexcept {
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr) return;
  if (ref.index() < counters_.backend_rows) counters_.backends[ref.index()].opened.add(1);
  if (const auto s = static_cast<std::uint32_t>(row->service); s < counters_.service_rows)
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
