// SPDX-License-Identifier: Apache-2.0
// Stage 2 of the path: the packets of a service's address find their connection, or a
// backend and a new connection, and are rewritten.
//
// Handles of the table hold until the first insert. So all packets with a connection
// come first; then the newcomers, whose memory was fetched meanwhile.
#include "dataplane/path/packet_path.hpp"
#include "dataplane/path/rewrite.hpp"

namespace sluice {

using abi::connection_state;
using abi::connection_word;
using abi::counter_id;
using connection::step;

namespace {

constexpr bool is_tcp(const wire::parsed& m) noexcept {
  return m.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
}

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

template <class Family>
void packet_path::resolve(batch<Family>& b, connection::flow_map<Family>& map) noexcept {
  map.find_bulk(b.keys.data(), b.hashes.data(), b.found.data(), b.size);
  unsigned missing = 0;
  for (unsigned k = 0; k < b.size; ++k) {
    if (b.found[k] != nullptr) [[likely]] {
      view_.prefetch_backend(b.found[k]->backend());
    } else {
      newcomers_[missing++].in_batch = static_cast<std::uint8_t>(k);
    }
  }
  if (missing == 0) [[likely]] {
    for (unsigned k = 0; k < b.size; ++k) hit(map, b.found[k], b.at[k]);
    return;
  }
  for (unsigned k = 0; k < b.size; ++k)
    if (b.found[k] != nullptr) hit(map, b.found[k], b.at[k]);
  resolve_new(b, map, missing);
}

// hit() sends a packet of a connection in the table to the connection's backend.
template <class Family>
inline void packet_path::hit(connection::flow_map<Family>& map, connection::handle found,
                             std::size_t i) noexcept {
  const connection_word w = *found;
  const wire::parsed& m = parsed_[i];
  const connection::transition next = hit_transitions[static_cast<std::size_t>(w.state()) & 7u]
                                                     [m.tcp_flags & (flag_combinations - 1)];
  ++tally_.hits;
  const abi::backend_ref ref = w.backend();
  const abi::backend_row* row = kept_backend(ref, *vips_[i]);
  if (row == nullptr || (m.tcp_flags & connection::tcp_syn) != 0) [[unlikely]]
    return hit_slow(map, found, i, next);
  if (next.step != step::ignore) map.store(found, w.with_seen(now_).with_state(next.next));
  send(i, ref, *row);
}

// hit_slow(): the backend is gone, or a SYN may begin a new connection in the old place.
template <class Family>
[[gnu::noinline]] void packet_path::hit_slow(connection::flow_map<Family>& map,
                                             connection::handle found, std::size_t i,
                                             connection::transition next) noexcept {
  const connection_word w = *found;
  const abi::backend_row* row = kept_backend(w.backend(), *vips_[i]);
  const bool syn = connection::classify(parsed_[i].tcp_flags) == connection::segment::syn;
  const bool anew = is_tcp(parsed_[i]) && syn && (next.step == step::renew || map.expired(w, now_));
  if (row != nullptr && !anew) {
    if (next.step != step::ignore) map.store(found, w.with_seen(now_).with_state(next.next));
    return send(i, w.backend(), *row);
  }
  const choice to = choose(i);
  if (to.row == nullptr) {
    packet& p = burst_[i];
    if (to.reason == counter_id::drop_no_service_port)
      return leave(p, kernel_reason::no_service_port, to.reason);
    return drop(p, to.reason);
  }
  const connection_state state = anew                        ? connection_state::syn
                                 : next.step == step::ignore ? w.state()
                                                             : next.next;
  if (anew) {
    ++tally_.opened;
    ++tally_.closed;
  } else {
    ++tally_.moved;
  }
  count_closed(w.backend());
  count_opened(to.ref);
  map.store(found, w.with_backend(to.ref).with_seen(now_).with_state(state));
  send(i, to.ref, *to.row);
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
      send(i, to.ref, *to.row);
      continue;
    }
    const auto entered = map.insert(b.hashes[c.in_batch], b.keys[c.in_batch],
                                    connection_word::make(vips_[i]->id, to.ref, now_, first.next));
    switch (entered.outcome) {
      case connection::outcome::existing:  // entered by an earlier packet of this burst
        hit(map, entered.handle, i);
        continue;
      case connection::outcome::no_room:
        ++tally_.untracked;
        send(i, to.ref, *to.row);
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
    send(i, to.ref, *to.row);
  }
}

// kept_backend() returns the row of a connection's backend, or null if the connection
// must be given another: the backend is removed or down, or the row serves another VIP.
inline const abi::backend_row* packet_path::kept_backend(abi::backend_ref ref,
                                                         const abi::vip_row& vip) noexcept {
  const abi::backend_row* row = view_.backend(ref);
  if (row == nullptr || (row->flags & abi::backend_keeps_connections) == 0) return nullptr;
  // Nearly always the pair that the packet before had.
  const std::uint32_t pair =
      static_cast<std::uint32_t>(row->service) << 16 | static_cast<std::uint32_t>(vip.id);
  if (pair != checked_pair_) {
    const abi::service_row* s = view_.service(row->service);
    if (s == nullptr || s->vip != vip.id) return nullptr;
    checked_pair_ = pair;
  }
  return row;
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
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
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

inline void packet_path::send(std::size_t i, abi::backend_ref ref,
                              const abi::backend_row& row) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  p.service = row.service;
  p.backend = ref;
  if ((row.flags & abi::backend_has_next_hop) == 0 || row.out_port >= port_count_) [[unlikely]]
    return drop(p, counter_id::drop_no_next_hop);
  const counter_id failed = rewrite(p, m, row, view_.header(), ports_[row.out_port].mac,
                                    [this, i] { return flow_hash(i); });
  if (failed != rewritten) [[unlikely]]
    return drop(p, failed);
  p.outcome = verdict::forward;
  p.out_port = row.out_port;
  ++tally_.forwarded;
  if (const auto s = static_cast<std::uint32_t>(row.service); s < counters_.service_rows)
      [[likely]] {
    counters_.services[s].packets.add(1);
    counters_.services[s].bytes.add(m.ip_length);
  }
  if (ref.index() < counters_.backend_rows) [[likely]] {
    counters_.backends[ref.index()].packets.add(1);
    counters_.backends[ref.index()].bytes.add(m.ip_length);
  }
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
