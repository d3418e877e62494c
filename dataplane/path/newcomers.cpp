// SPDX-License-Identifier: Apache-2.0
// Packets that have no connection, or whose connection has lost its backend: what their
// service lets in, which backend they go to, and the entry of their connection.
//
// A packet that begins a connection (SYN, first datagram) goes where the service's scheduler
// says. Anything else that is not in the table goes by abi/stateless_choice.hpp, as does what
// finds no room: without an entry all packets of a flow must choose alike. Persistence goes
// before the scheduler, a QUIC connection id before everything. options.cpp has the details.
#include <algorithm>
#include <type_traits>

#include "dataplane/path/hit_table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "dataplane/path/ready.hpp"
#include "dataplane/path/schedule/schedule.hpp"
#include "dataplane/path/source_of.hpp"

namespace sluice {

using abi::connection_state;
using abi::connection_word;
using abi::counter_id;
using connection::step;

namespace {

constexpr bool is_syn(const wire::parsed& m) noexcept {
  return is_tcp(m) && connection::classify(m.tcp_flags) == connection::segment::syn;
}

}  // namespace

// hit_slow(): as hit(), and the backend may be gone, the row not looked at before in this
// generation, or a SYN may begin a new connection in the old one's place. rated: the service's
// packet rate has been asked, as the packet came without a connection.
template <class Family>
[[gnu::noinline]] void packet_path::hit_slow(connection::flow_map<Family>& map,
                                             connection::handle found, std::size_t i,
                                             bool rated) noexcept {
  const connection_word w = *found;
  const wire::parsed& m = parsed_[i];
  const connection::transition next = hit_transitions[static_cast<std::size_t>(w.state()) & 7u]
                                                     [m.tcp_flags & (flag_combinations - 1)];
  // The entry's VIP is the packet's.
  const abi::vip_row& vip = vip_cache_.row(w.value);
  const abi::backend_row* row = kept_backend(w.backend(), vip);
  // An entry that has been idle too long and was not swept yet still knows the backend:
  // only a SYN, which says that nothing is to be continued, is not bound by it.
  const bool anew = is_syn(m) && (next.step == step::renew || map.expired(w, now_));
  if (row != nullptr && !anew) {
    course how = course::as_ever;
    if (const abi::service_row* s = view_.service(row->service);
        s != nullptr && (s->flags & abi::service_has_options) != 0) {
      how = every_packet(i, *s, w.backend(), rated);
      if (how == course::ended) return;
    }
    if (next.step != step::ignore) map.store(found, w.with_seen(now_).with_state(next.next));
    if (how == course::as_ever) make_egress(tag_of(w), w.backend(), *row);
    return send(i, w.backend());
  }
  const choice to = choose(i, vip, anew, rated);
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
  count_opened(to.ref, anew);
  map.store(found, w.with_backend(to.ref).with_seen(now_).with_state(state));
  send(i, to.ref);
}

// prepare() is quick() for packets that may have no connection; without members: it was not.
template <class Family>
[[gnu::noinline]] void packet_path::prepare(const batch<Family>& b, const search& s) noexcept {
  newcomer* n = newcomers_.data();
  for (unsigned c = 0, at = 0; at < b.size; ++c, at += s.step)
    for (std::uint64_t rest = s.missed[c]; rest != 0; rest &= rest - 1, ++n) {
      const unsigned k = at + static_cast<unsigned>(__builtin_ctzll(rest));
      n->in_batch = static_cast<std::uint8_t>(k);
      if (quick(b, k, *n)) continue;
      n->members = nullptr;
      n->slot = nullptr;
    }
  fetch_slots(static_cast<unsigned>(n - newcomers_.data()));
}

// fetch_slots() fetches the slots of the first `count` newcomers. All in a row: a fetch that has
// to find its page first keeps the instructions behind it waiting, but not another fetch.
void packet_path::fetch_slots(unsigned count) const noexcept {
  for (unsigned j = 0; j < count; ++j) __builtin_prefetch(newcomers_[j].slot);
}

// resolve_new() finds a backend for the packets without a connection, and enters those
// that begin one. In steps, each of which fetches what the next one reads. prepared: prepare() has
// seen them.
template <class Family>
[[gnu::noinline]] void packet_path::resolve_new(batch<Family>& b, connection::flow_map<Family>& map,
                                                unsigned count, bool prepared) noexcept {
  unsigned going = 0;
  for (unsigned j = 0; j < count; ++j) {
    const std::uint8_t k = newcomers_[j].in_batch;
    if (prepared) {
      if (newcomers_[j].members != nullptr) [[likely]] {
        if (going++ != j) newcomers_[going - 1] = newcomers_[j];
        continue;
      }
    } else if (quick(b, k, newcomers_[going])) [[likely]] {
      ++going;
      continue;
    }
    const std::size_t i = number_of(b.packets[k]);
    packet& p = burst_[i];
    spell_out(b, k);
    const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + parsed_[i].l4);
    const abi::service_row* s =
        view_.find_service(vip_cache_.row(b.keys[k].vip_bits), l4.destination_port.host());
    if (s == nullptr) {
      leave(p, kernel_reason::no_service_port, counter_id::drop_no_service_port);
      continue;
    }
    // Before anything is chosen, limited or entered: all of that is the owner's.
    if (owner_ != nullptr && hand_over(i)) continue;
    p.service = s->self;
    newcomer n{};
    n.service = s;
    n.options = abi::options_of(view_, *s);
    n.in_batch = k;
    if (n.options != nullptr) [[unlikely]] {
      if (const counter_id no = let_in(i, *s, n.options, true, false); no != counter_id::count_) {
        drop(p, no);
        continue;
      }
      n.backend = by_quic_id(i, *s, *n.options);
      n.by_id = !n.backend.none();
      if (n.by_id) {
        newcomers_[going++] = n;
        continue;
      }
    }
    if (s->member_count == 0) {
      drop(p, counter_id::drop_no_backend);
      continue;
    }
    n.hash = choice_hash(i, *s, n.options);
    if (!abi::does_without_table(*s)) [[likely]] {
      const abi::slot_table table = view_.table_of(*s);
      if (table.empty()) {
        drop(p, counter_id::drop_bad_table);
        continue;
      }
      n.slot = table.of(n.hash);
      n.wide = table.wide();
    } else {
      n.backend = abi::stateless_choice(view_, *s, n.hash);
    }
    newcomers_[going++] = n;
  }
  if (!prepared) fetch_slots(going);
  for (unsigned j = 0; j < going; ++j) {
    newcomer& c = newcomers_[j];
    if (c.members != nullptr) [[likely]] {
      const std::uint16_t position = abi::position_at(c.slot, abi::slots_are_wide(c.member_count));
      c.backend = position < c.member_count ? c.members[position] : abi::backend_ref{};
      __builtin_prefetch(&line_of(c.backend));
      continue;
    }
    if (c.slot != nullptr) c.backend = view_.member(*c.service, abi::position_at(c.slot, c.wide));
    view_.prefetch_backend(c.backend);
    __builtin_prefetch(&line_of(c.backend));
  }
  // Nothing of this burst was in the table a moment ago. So a hash that has not been met here
  // is that of a connection that is new indeed.
  std::array<std::uint64_t, 16> met{};
  for (unsigned j = 0; j < going; ++j) {
    newcomer& c = newcomers_[j];
    const std::uint64_t h = b.hashes[c.in_batch].value;
    std::uint64_t& word = met[h >> 6 & 15];
    const std::uint64_t bit = std::uint64_t{1} << (h & 63);
    const bool fresh = (word & bit) == 0;
    word |= bit;
    if (c.members != nullptr) [[likely]] {
      enter_quickly(b, map, c, fresh);
    } else {
      enter(b, map, c, fresh);
    }
  }
  count_given_way();
}

// quick() makes a newcomer of a common packet whose service is in the service_cache.
template <class Family>
[[gnu::always_inline]] inline bool packet_path::quick(const batch<Family>& b, unsigned k,
                                                      newcomer& n) noexcept {
  if (owner_ != nullptr || (b.commons[k] & 3) == 0) [[unlikely]]
    return false;
  const auto& key = b.keys[k];
  const std::uint64_t seed = view_.header().hash_seed;
  const std::byte* const l3 = b.packets[k]->data + sizeof(wire::ethernet_header);
  std::uint16_t port;
  std::uint64_t hash;
  if constexpr (std::is_same_v<Family, connection::ipv4>) {
    port = static_cast<std::uint16_t>(key.tuple >> 48);
    if (expects_new_ && (b.commons[k] & wire::roomy) != 0) [[likely]] {
      hash = choices4_[k];
    } else {
      const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(l3);
      hash = sluice_flow_hash4(seed, ip.source.raw(), ip.destination.raw(),
                               static_cast<std::uint16_t>(key.tuple >> 32), port, ip.protocol);
    }
  } else {
    const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(l3);
    const ip_address destination{ip.destination};
    port = static_cast<std::uint16_t>(key.ports >> 16);
    hash = sluice_flow_hash6(seed, key.source_high, key.source_low, destination.high(),
                             destination.low(), static_cast<std::uint16_t>(key.ports), port,
                             ip.next_header);
  }
  const service_cache::place* const s =
      service_cache_.find(view_, vip_cache_.row(key.vip_bits), key.vip_bits, port);
  if (s == nullptr) return false;
  // Copied: another of this burst may take the place.
  n.service = s->row;
  n.options = nullptr;
  n.members = s->members;
  n.member_count = s->member_count;
  n.service_number = s->service;
  n.hash = hash;
  n.slot = s->slots.of(hash);
  n.in_batch = static_cast<std::uint8_t>(k);
  return true;
}

template <class Family>
[[gnu::always_inline]] inline void packet_path::enter_quickly(batch<Family>& b,
                                                              connection::flow_map<Family>& map,
                                                              newcomer& c, bool fresh) noexcept {
  const unsigned k = c.in_batch;
  const wire::common common = b.commons[k];
  abi::backend_counters& line = line_of(c.backend);
  const egress& e = egress_in(line);
  const std::uint64_t word = b.keys[k].vip_bits | std::uint64_t{c.backend.value}
                                                      << connection_word::backend_shift;
  const connection_state first =
      (common & 1) != 0 ? opened_by[common >> wire::common_flags_shift & (flag_combinations - 1)]
                        : connection_state::udp_new;
  if (e.tag != tag_of({word}) || e.service != c.service_number || first == connection_state::free)
      [[unlikely]] {
    spell_out(b, k);
    packet& p = *b.packets[k];
    p.service = static_cast<abi::service_id>(c.service_number);
    c.by_id = false;
    return enter(b, map, c, fresh);
  }
  const auto entered =
      map.insert(b.hashes[k], b.keys[k],
                 {word | std::uint64_t{now_} << connection_word::time_shift |
                  static_cast<std::uint64_t>(first) << connection_word::state_shift},
                 fresh);
  if (entered.outcome == connection::outcome::existing) [[unlikely]] {
    ++tally_.hits;
    spell_out(b, k);
    return hit_slow(map, entered.handle, number_of(b.packets[k]), true);
  }
  if (entered.outcome == connection::outcome::no_room) {
    ++tally_.untracked;
  } else {
    count_entered(entered);
    line.opened.add(1);
    counters_.services[c.service_number].opened.add(1);
  }
  if (((common & wire::roomy) != 0 && send_prepared(b, k, c.backend, line)) ||
      send_ready<Family>(*b.packets[k], wire::length_of(common), c.backend, line)) [[likely]] {
    ++tally_.forwarded;
    return;
  }
  spell_out(b, k);
  send(number_of(b.packets[k]), c.backend);
}

// count_entered() counts a connection that has been entered, and the one that gave way.
inline void packet_path::count_entered(const connection::insertion& i) noexcept {
  ++tally_.opened;
  if (i.outcome == connection::outcome::inserted) [[likely]]
    return;
  ++(i.outcome == connection::outcome::expired ? tally_.expired : tally_.evicted);
  ++tally_.closed;
  const abi::backend_ref ref = i.old.backend();
  __builtin_prefetch(&line_of(ref));
  gave_way_[gave_way_count_++] = i.old;
}

void packet_path::count_given_way() noexcept {
  for (unsigned j = 0; j < gave_way_count_; ++j) {
    const connection_word w = gave_way_[j];
    const abi::backend_ref ref = w.backend();
    // An egress of this generation says that the row is still that backend's.
    abi::backend_counters& line = line_of(ref);
    if (egress_in(line).tag == tag_of(w)) [[likely]] {
      line.closed.add(1);
    } else {
      count_closed(ref);
    }
  }
  gave_way_count_ = 0;
}

// send_new() is send() for the first packet of a connection. It makes the backend's egress, on
// hit_slow()'s conditions.
template <class Family>
[[gnu::always_inline]] inline void packet_path::send_new(const batch<Family>& b, unsigned k,
                                                         const abi::service_row& s,
                                                         const choice& to) noexcept {
  const std::size_t i = number_of(b.packets[k]);
  const std::uint64_t vip_bits = b.keys[k].vip_bits;
  const std::uint64_t tag =
      tag_of({vip_bits | std::uint64_t{to.ref.value} << connection_word::backend_shift});
  abi::backend_counters& line = line_of(to.ref);
  const egress& e = egress_in(line);
  // The MSS of a SYN is send()'s to lower.
  if (s.mss_clamp != 0) [[unlikely]]
    return send(i, to.ref);
  if (e.tag != tag) [[unlikely]] {
    if ((s.flags & abi::service_has_options) != 0 || connection_word::vip_bits(s.vip) != vip_bits ||
        (to.row->flags & abi::backend_keeps_connections) == 0)
      return send(i, to.ref);
    make_egress(tag, to.ref, *to.row);
    if (e.tag != tag) return send(i, to.ref);  // it has no line
  }
  if (!send_ready<Family>(burst_[i], wire::length_of(b.commons[k]), to.ref, line))
    return send(i, to.ref);
  ++tally_.forwarded;
}

// enter() takes one newcomer, whose backend by the hash is known, to the end.
template <class Family>
[[gnu::always_inline]] inline void packet_path::enter(batch<Family>& b,
                                                      connection::flow_map<Family>& map,
                                                      const newcomer& c, bool fresh) noexcept {
  const std::size_t i = number_of(b.packets[c.in_batch]);
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  if (c.by_id) {
    count(counter_id::quic_by_id);
    return send(i, c.backend);
  }
  choice fallback = checked(*c.service, c.backend);
  bool persists = false;
  bool known = false;
  if (c.options != nullptr) [[unlikely]] {
    persists = c.options->persistence_timeout != 0;
    if (const abi::backend_ref ref = persistent(i, *c.service, *c.options); !ref.none()) {
      known = true;
      fallback = checked(*c.service, ref);
    }
  }
  if (fallback.row == nullptr) return drop(p, fallback.reason);
  const connection::transition first =
      is_tcp(m) ? connection::tcp_next(connection_state::free, m.tcp_flags)
                : connection::udp_next(connection_state::free);
  if (first.step != step::create) return send(i, fallback.ref);

  choice to = fallback;
  const abi::scheduler kind = c.service->kind;
  const bool asks = !by_hash::is(kind) && !persists;
  if ((asks || c.options != nullptr) && (is_syn(m) || !is_tcp(m))) {
    // Schedulers and limits count: they are asked only for what is a new connection indeed,
    // and not the next packet of one that began in this burst.
    if (const connection::handle found = map.find(b.hashes[c.in_batch], b.keys[c.in_batch]);
        found != nullptr) {
      ++tally_.hits;
      return hit_slow(map, found, i, true);
    }
    if (c.options != nullptr) {
      bool flooded = false;
      if (const counter_id no = begin(i, *c.service, *c.options, flooded); no != counter_id::count_)
        return drop(p, no);
      if (flooded) {
        count(counter_id::syn_flood_stateless);
        return send(i, fallback.ref);
      }
    }
    if (asks) to = checked(*c.service, scheduled(*c.service, kind, c.hash));
    if (to.row == nullptr) return drop(p, to.reason);
  }
  const auto entered = map.insert(
      b.hashes[c.in_batch], b.keys[c.in_batch],
      connection_word{b.keys[c.in_batch].vip_bits}.with_backend(to.ref).with_seen(now_).with_state(
          first.next),
      fresh);
  switch (entered.outcome) {
    case connection::outcome::existing:  // entered by an earlier packet of this burst
      ++tally_.hits;
      return hit_slow(map, entered.handle, i, true);
    case connection::outcome::no_room:
      ++tally_.untracked;
      return send_new(b, c.in_batch, *c.service, fallback);
    default:
      break;
  }
  count_entered(entered);
  count_opened(to.ref, true);
  if (persists) [[unlikely]] {
    if (known) count(counter_id::persistence_hits);
    remember(i, *c.service, *c.options, to.ref);
  }
  send_new(b, c.in_batch, *c.service, to);
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

// choice_hash() is what a packet of a service goes by without a connection.
std::uint64_t packet_path::choice_hash(std::size_t i, const abi::service_row& s,
                                       const abi::service_options* options) const noexcept {
  if (!abi::goes_by_source(s, options)) [[likely]]
    return flow_hash(i);
  return abi::choice_hash(view_, s, options, source_of(burst_[i], parsed_[i]),
                          [] { return std::uint64_t{0}; });
}

// scheduled() asks a service's scheduler for the backend of a new connection.
abi::backend_ref packet_path::scheduled(const abi::service_row& s, abi::scheduler kind,
                                        std::uint64_t hash) noexcept {
  const auto id = static_cast<std::uint32_t>(s.self);
  if (id >= counters_.service_rows) return abi::stateless_choice(view_, s, hash);
  return schedule(kind, {view_, s, hash, states_[id], random_, loads_});
}

// choose() gives a packet whose connection needs another backend one. anew: it begins another
// connection in the old one's place.
packet_path::choice packet_path::choose(std::size_t i, const abi::vip_row& vip, bool anew,
                                        bool rated) noexcept {
  packet& p = burst_[i];
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + parsed_[i].l4);
  const abi::service_row* s = view_.find_service(vip, l4.destination_port.host());
  if (s == nullptr) return {nullptr, {}, counter_id::drop_no_service_port};
  p.service = s->self;
  const abi::service_options* options = abi::options_of(view_, *s);
  if (options != nullptr) {
    counter_id no = let_in(i, *s, options, anew, rated);
    bool flooded = false;  // the entry is there already
    if (no == counter_id::count_ && anew) no = begin(i, *s, *options, flooded);
    if (no != counter_id::count_) return {nullptr, {}, no};
    if (const abi::backend_ref named = by_quic_id(i, *s, *options); !named.none()) {
      count(counter_id::quic_by_id);
      return checked(*s, named);
    }
  }
  if (s->member_count == 0) return {nullptr, {}, counter_id::drop_no_backend};
  if (options != nullptr && options->persistence_timeout != 0) {
    abi::backend_ref ref = persistent(i, *s, *options);
    if (ref.none()) {
      ref = abi::stateless_choice(view_, *s, choice_hash(i, *s, options));
    } else if (anew) {
      count(counter_id::persistence_hits);
    }
    const choice to = checked(*s, ref);
    if (to.row != nullptr) remember(i, *s, *options, ref);
    return to;
  }
  const std::uint64_t hash = choice_hash(i, *s, options);
  const abi::scheduler kind = s->kind;
  if (by_hash::is(kind)) return checked(*s, abi::stateless_choice(view_, *s, hash));
  return checked(*s, scheduled(*s, kind, hash));
}

template void packet_path::hit_slow(connection::flow_map<connection::ipv4>&, connection::handle,
                                    std::size_t, bool) noexcept;
template void packet_path::hit_slow(connection::flow_map<connection::ipv6>&, connection::handle,
                                    std::size_t, bool) noexcept;
template void packet_path::resolve_new(batch<connection::ipv4>&,
                                       connection::flow_map<connection::ipv4>&, unsigned,
                                       bool) noexcept;
template void packet_path::resolve_new(batch<connection::ipv6>&,
                                       connection::flow_map<connection::ipv6>&, unsigned,
                                       bool) noexcept;
template void packet_path::prepare(const batch<connection::ipv4>&, const search&) noexcept;
template void packet_path::prepare(const batch<connection::ipv6>&, const search&) noexcept;

}  // namespace sluice
