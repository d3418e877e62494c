// SPDX-License-Identifier: Apache-2.0
// Stage 2 of the path: the packets of a service's address find their connection and are
// rewritten for its backend. Those that find none: newcomers.cpp.
//
// Handles of the table hold until the first insert. So all packets with a connection
// come first; then the newcomers, whose memory was fetched meanwhile.
#include <algorithm>
#include <bit>
#include <type_traits>
#include <utility>

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
  if (ref.index() > line_mask_) return;
  egress& e = egress_of(ref);
  const hop_words to = hop_words::of(row);
  const abi::encap_source& source4 = view_.header().source4;
  const abi::encap_source& source6 = view_.header().source6;
  e = {};
  e.tag = tag;
  e.how = egress::way::other;
  e.service = to.service();
  e.reason = static_cast<std::uint16_t>(counter_id::count_);
  e.outcome = static_cast<std::uint8_t>(verdict::forward);
  e.out_port = to.out_port();
  e.hop = to.next_hop();
  // What is counted without a question must have its counters.
  if (!to.has(abi::backend_has_next_hop) || to.out_port() >= port_count_ ||
      to.service() >= counters_.service_rows || ref.index() >= counters_.backend_rows)
    return;
  const auto take = [&](egress::way how, std::size_t added) {
    e.how = how;
    e.limit = static_cast<std::uint16_t>(to.mtu() - added);
  };
  if (to.mode() == abi::forward_mode::dsr_l2) {
    take(egress::way::dsr_l2, 0);
  } else if (to.mode() == abi::forward_mode::nat || to.mode() == abi::forward_mode::full_nat) {
    if (!nat_active_) return;
    take(egress::way::nat, 0);
  } else if (to.mode() != abi::forward_mode::ipip) {
    return;
  } else if (detail::is_v4(row.address)) {
    if (source4.configured == 0 || source4.prefix < 32 || to.mtu() < sizeof(wire::ipv4_header))
      return;
    take(egress::way::ipip4, sizeof(wire::ipv4_header));
    e.limit_ipip4 = e.limit;
    e.address = row.address.v4_raw().raw();
    std::array<std::byte, sizeof(wire::ipv4_header)> outer;
    wire::make_outer4(outer.data(), 0, ip_proto::ipip, 0, source4.base.v4_raw(),
                      row.address.v4_raw());
    // Length and checksum are the packet's; the first word is summed with its TOS.
    std::memset(outer.data() + 10, 0, 2);
    const std::uint16_t sum = wire::fold(wire::sum({outer.data() + 4, outer.size() - 4}));
    e.hop |= std::uint64_t{sum} << 48;
  } else {
    if (source6.configured == 0 || source6.prefix < 128 || to.mtu() < sizeof(wire::ipv6_header))
      return;
    take(egress::way::ipip6, sizeof(wire::ipv6_header));
    outer6_[ref.index()] = row.address;
  }
}

// settles_nothing_else(): an established connection stays so for all flags but the unsettling ones.
constexpr bool settles_nothing_else() noexcept {
  constexpr auto& next = hit_transitions[static_cast<std::size_t>(connection_state::established)];
  for (unsigned flags = 0; flags < flag_combinations; ++flags)
    if ((flags & (connection::tcp_fin | connection::tcp_syn | connection::tcp_rst)) == 0 &&
        next[flags].step != step::ignore && next[flags].next != connection_state::established)
      return false;
  return true;
}

// make_stamps() makes stamps_ for a second of the table's clock.
void packet_path::make_stamps(std::uint16_t now) noexcept {
  now_ = now;
  static_assert(settles_nothing_else());
  settled_ = std::uint64_t{now} << connection_word::time_shift |
             static_cast<std::uint64_t>(connection_state::established)
                 << connection_word::state_shift;
  for (std::size_t state = 0; state < hit_transitions.size(); ++state)
    for (std::size_t flags = 0; flags < flag_combinations; ++flags) {
      const connection::transition t = hit_transitions[state][flags];
      stamp& s = stamps_[state * flag_combinations + flags];
      s.word = std::uint64_t{now} << connection_word::time_shift |
               static_cast<std::uint64_t>(t.next) << connection_word::state_shift;
      s.mask = t.step == step::ignore ? 0 : settled_mask;
      // A SYN is hit_slow()'s: no entry has this state.
      if ((flags & connection::tcp_syn) != 0) s = {settled_mask, settled_mask};
    }
}

// hit() sends a packet of a connection in the table to the connection's backend. False: it has
// not counted it as sent. before(): what comes before anything that others notice.
template <bool wide, class Family, class Before>
[[gnu::always_inline]] inline bool packet_path::hit(batch<Family>& b,
                                                    connection::flow_map<Family>& map, unsigned k,
                                                    Before&& before) noexcept {
  const connection::handle found = b.found[k];
  const connection_word w = *found;
  const wire::common c = b.commons[k];
  abi::backend_counters& line = line_of(w.backend());
  const egress& e = egress_in(line);
  const auto slowly = [&] {
    before();
    translate_put_off(b, k);  // in the order of the burst
    spell_out(b, k);
    hit_slow(map, found, number_of(b.packets[k]), false);
    return false;
  };
  if (e.tag != tag_of(w)) [[unlikely]]
    return slowly();
  // For nearly all packets there is nothing to change and all is prepared.
  if (wide && is_settled(w) && (c & (unsettling | wire::roomy)) == wire::roomy) [[likely]] {
    if (send_prepared(b, k, w.backend(), line)) [[likely]]
      return true;
    if (e.how == egress::way::nat && nat_active_) {
      put_off(b, k);
      return false;
    }
  }
  // Mostly nothing changes.
  if (!is_settled(w) || (c & unsettling) != 0) [[unlikely]] {
    const stamp& s = stamp_for(w, c);
    if (const std::uint64_t change = (w.value ^ s.word) & s.mask; change != 0) {
      if ((wire::flags_of(c) & connection::tcp_syn) != 0) return slowly();
      map.store(found, {w.value ^ change});
    }
  }
  if (send_ready<Family>(*b.packets[k], wire::length_of(c), w.backend(), line)) [[likely]]
    return true;
  if (e.how == egress::way::nat && nat_active_ && (c & 3) != 0) {
    put_off(b, k);
    return false;
  }
  before();
  translate_put_off(b, k);
  spell_out(b, k);
  send(number_of(b.packets[k]), w.backend());
  return false;
}

// look_on() turns to the secondary buckets of those that are not in their primary, and deals with
// those that are there and come before packet `end`; the others are known to s. Where most
// packets begin connections, these are prepared before, while the secondaries are on their way; in
// vain for those that turn out to be there.
template <bool wide, class Family>
[[gnu::noinline]] void packet_path::look_on(batch<Family>& b, connection::flow_map<Family>& map,
                                            search& s, unsigned end) noexcept {
  s.looked_on = s.looked;
  s.prepared = s.looked == b.size && 2 * s.missing > b.size;
  if (s.prepared) prepare(b, s);
  std::array<std::uint64_t, 2 * max_burst / chunk> there;
  std::uint64_t any = 0;
  for (unsigned c = 0, at = 0; at < s.looked; ++c, at += s.step) {
    there[c] = map.find_secondaries(b.keys.data() + at, b.hashes.data() + at, b.found.data() + at,
                                    s.beside, std::exchange(s.again[c], 0));
    s.missed[c] &= ~there[c];
    any |= there[c];
  }
  if (any == 0) return;
  for (unsigned c = 0, at = 0; at < s.looked; ++c, at += s.step)
    for (std::uint64_t rest = there[c]; rest != 0; rest &= rest - 1) {
      const unsigned k = at + static_cast<unsigned>(__builtin_ctzll(rest));
      --s.missing;
      if (k < end) {
        s.unsent += !hit<wide>(b, map, k, [] {});
      } else {
        s.known[c] |= rest & -rest;
      }
    }
  if (!s.prepared) return;
  unsigned left = 0;
  for (unsigned j = 0; left < s.missing; ++j)
    if (const unsigned k = newcomers_[j].in_batch; b.found[k] == nullptr && left++ != j)
      newcomers_[left - 1] = newcomers_[j];
}

// A packet that changes nothing but its own connection is dealt with at once; before anything
// else, all that came earlier in the burst are.
template <bool wide, class Family>
void packet_path::resolve(batch<Family>& b, connection::flow_map<Family>& map) noexcept {
  static_assert(sizeof(abi::backend_counters) == cache_line && sizeof(ip_address) == 16);
  search s;
  s.beside = {reinterpret_cast<const std::byte*>(lines_),
              reinterpret_cast<const std::byte*>(outer6_.get())};
  // Packets of a large table are sent half a burst later than their buckets are fetched; a small
  // one is there at once, and each turn has its price.
  s.step = map.bucket_count() * sizeof(typename Family::bucket) > small_table ? chunk / 2 : chunk;
  const unsigned size = b.size;
  unsigned unsent = 0;
  for (unsigned c = 0, at = 0; at < size; ++c, at += s.step) {
    const unsigned n = std::min(size - at, s.step);
    const auto [missed, again] =
        map.find_primaries(b.keys.data() + at, b.hashes.data() + at, b.firsts.data() + at,
                           b.found.data() + at, s.beside, n);
    s.missed[c] = missed;
    s.again[c] = again;
    s.known[c] = ~missed & (~std::uint64_t{0} >> (64 - n));
    s.missing += static_cast<unsigned>(std::popcount(missed));
    s.looked = at + n;
    for (std::uint64_t rest = s.known[c]; rest != 0;) {
      const unsigned k = at + static_cast<unsigned>(__builtin_ctzll(rest));
      rest &= rest - 1;
      unsent += !hit<wide>(b, map, k, [&] {
        if (s.missing == 0 || s.looked_on == s.looked) return;
        s.known[c] = rest;
        look_on<wide>(b, map, s, k);
        rest = s.known[c];
      });
    }
  }
  if (s.missing != 0 && s.looked_on != size) look_on<wide>(b, map, s, size);
  translate_put_off(b, size);
  tally_.hits += size - s.missing;
  tally_.forwarded += size - s.missing - unsent - s.unsent;
  if (s.missing == 0) return;
  if (!s.prepared) {
    newcomer* n = newcomers_.data();
    for (unsigned c = 0, at = 0; at < size; ++c, at += s.step)
      for (std::uint64_t rest = s.missed[c]; rest != 0; rest &= rest - 1)
        n++->in_batch =
            static_cast<std::uint8_t>(at + static_cast<unsigned>(__builtin_ctzll(rest)));
  }
  resolve_new(b, map, s.missing, s.prepared);
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

template void packet_path::resolve<false>(batch<connection::ipv4>&,
                                          connection::flow_map<connection::ipv4>&) noexcept;
template void packet_path::resolve<false>(batch<connection::ipv6>&,
                                          connection::flow_map<connection::ipv6>&) noexcept;
template void packet_path::resolve<true>(batch<connection::ipv4>&,
                                         connection::flow_map<connection::ipv4>&) noexcept;
template void packet_path::resolve<true>(batch<connection::ipv6>&,
                                         connection::flow_map<connection::ipv6>&) noexcept;

}  // namespace sluice
