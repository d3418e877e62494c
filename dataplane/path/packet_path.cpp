// SPDX-License-Identifier: Apache-2.0
// Stage 1 of the path: what is this packet, and is it for a service's address.
#include "dataplane/path/packet_path.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

namespace sluice {

using abi::counter_id;
using wire::parse_kind;

namespace {

constexpr std::uint8_t number(ip_proto p) {
  return static_cast<std::uint8_t>(p);
}

constexpr bool is_transport(std::uint8_t protocol) noexcept {
  return protocol == number(ip_proto::tcp) || protocol == number(ip_proto::udp);
}

// may_follow() tells whether a fragment may belong to a TCP or UDP packet. Later fragments
// of IPv6 name what the first one begins with, which may be an extension header.
constexpr bool may_follow(const wire::parsed& m) noexcept {
  if (is_transport(m.protocol)) return true;
  if (m.version == 4) return false;
  const auto proto = static_cast<ip_proto>(m.protocol);
  return proto == ip_proto::hop_by_hop || proto == ip_proto::routing ||
         proto == ip_proto::dest_options || proto == ip_proto::ah;
}

// type_of() is a frame's ether_type as it is in memory; 0: it has none.
std::uint16_t type_of(const packet& p) noexcept {
  std::uint16_t type = 0;
  if (p.length >= sizeof(wire::ethernet_header)) [[likely]]
    std::memcpy(&type, p.data + offsetof(wire::ethernet_header, type), 2);
  return type;
}

// already_spelled() stands for a packet whose parsed_ is filled. It is longer than any egress
// takes, so that it never goes the shortest way.
constexpr wire::common already_spelled(const wire::parsed& m) noexcept {
  return 0xfffffu << 12 | std::uint32_t{m.tcp_flags} << wire::common_flags_shift;
}

}  // namespace

packet_path::packet_path(connection::connection_table& table, const path_counters& counters,
                         std::span<const path_port> ports) noexcept
    : table_{table},
      counters_{counters},
      port_count_{static_cast<unsigned>(std::min<std::size_t>(ports.size(), abi::max_ports))},
      lines_{counters.backend_rows != 0 ? counters.backends : &no_line_},
      line_mask_{std::bit_floor(std::max(counters.backend_rows, 1u)) - 1},
      outer6_{line_mask_ + 1},
      service_cache_{counters.service_rows},
      states_{new service_state[counters.service_rows]},  // lint: cold
      tables_{new option_tables},                         // lint: cold
      // lint: cold
      own_persistence_{new persistence_table{
          {table.v4.hash({0x5eed, 1}).value, table.v4.hash({0x5eed, 2}).value}}},
      persistence_{own_persistence_.get()},
      loads_{counters.backends, counters.backend_rows, counters.other_backends, counters.instance,
             counters.service_rows},
      // Another sequence in every worker: the table's secret is its own.
      random_{table.v4.hash({0x5eed, 0}).value} {
  static_assert(abi::max_ports <= 32);
  make_stamps(now_);
  for (std::size_t i = 0; i <= line_mask_; ++i) new (lines_[i].own.data()) egress{};  // lint: cold
  for (unsigned i = 0; i < port_count_; ++i) {
    port_macs_[i] = wire::to_word(ports[i].mac);
    port_sources4_[i] =
        port_macs_[i] | std::uint64_t{be16{static_cast<std::uint16_t>(ether_type::ipv4)}.raw()}
                            << 48;
    port_sources6_[i] =
        port_macs_[i] | std::uint64_t{be16{static_cast<std::uint16_t>(ether_type::ipv6)}.raw()}
                            << 48;
    kernel_ports_ |= std::uint32_t{ports[i].leaves_rest_to_kernel} << i;
  }
}

void packet_path::set_view(const abi::config_view& view) noexcept {
  view_ = view;
  vip_cache_.forget();
  service_cache_.forget();
  echo_known_ = false;
  nat_backends_known_ = false;
  // The tags of all generations before are void; after 2^24 generations they would not be.
  if (++generation_ == std::uint64_t{1} << generation_bits) {
    for (std::size_t i = 0; i <= line_mask_; ++i) egress_in(lines_[i]).tag = 0;
    generation_ = 1;
  }
  tables_->quic.take_up(view_);
  nat_active_ = false;
  if (view_.empty()) return;
  if (const std::uint64_t flushes = view_.header().flushes; flushes != flushes_) {
    flushes_ = flushes;
    flush_begins_ = flushes != 0;
  }
  table_.set_timeouts(view_.header().timeouts);
  wide_ = processor_is_wide() && table_.v4.instructions() == connection::instruction_set::avx512 &&
          (table_.v4.bucket_count() | table_.v6.bucket_count()) >> 32 == 0;
  outer4_begin_ = std::uint64_t{wire::outer_ttl} | std::uint64_t{number(ip_proto::ipip)} << 8 |
                  std::uint64_t{view_.header().source4.base.v4_raw().raw()} << 32;
  outer6_source_ = view_.header().source6.base;
  use_nat(nat_, all_nat_);
}

void packet_path::process(std::span<packet> burst, std::uint64_t now_ns) noexcept {
  const std::uint16_t now = table_.clock(now_ns);
  if (now != now_) [[unlikely]]
    make_stamps(now);
  now_ns_ = now_ns;
  forget_released();
  for (; burst.size() > max_burst; burst = burst.subspan(max_burst))
    process_some(burst.first(max_burst));
  process_some(burst);
}

void packet_path::process_some(std::span<packet> burst) noexcept {
  burst_ = burst.data();
  burst_size_ = burst.size();
  tally_ = {};
  batch4_.size = 0;
  batch6_.size = 0;

  classify();
  if (wide_) {
    if (batch4_.size != 0) resolve<true>(batch4_, table_.v4);
    if (batch6_.size != 0) resolve<true>(batch6_, table_.v6);
  } else {
    if (batch4_.size != 0) resolve<false>(batch4_, table_.v4);
    if (batch6_.size != 0) resolve<false>(batch6_, table_.v6);
  }
  expects_new_ = 2 * tally_.hits < batch4_.size + batch6_.size;
  if (note_count_ != 0) [[unlikely]]
    settle_fragments();

  const auto add = [this](counter_id id, std::uint64_t count) {
    if (count != 0) counters_.worker[static_cast<std::size_t>(id)].add(count);
  };
  add(counter_id::forwarded, tally_.forwarded);
  add(counter_id::connection_hits, tally_.hits);
  add(counter_id::connections_opened, tally_.opened);
  add(counter_id::connections_closed, tally_.closed);
  add(counter_id::connections_expired, tally_.expired);
  add(counter_id::connections_evicted, tally_.evicted);
  add(counter_id::connections_moved, tally_.moved);
  add(counter_id::connections_untracked, tally_.untracked);
  add(counter_id::to_kernel, tally_.to_kernel);
}

// locate() finds out where the keys from number `from` on may be, and fetches that.
template <class Family>
[[gnu::always_inline]] inline void packet_path::locate(batch<Family>& b,
                                                       const connection::flow_map<Family>& map,
                                                       unsigned from, unsigned to) noexcept {
  const auto with = [&](auto&& hash_of) {
    for (unsigned n = from; n < to; ++n) {
      const connection::bucket_hash hash = hash_of(b.keys[n]);
      b.hashes[n] = hash;
      b.firsts[n] = map.prefetch(hash);
    }
  };
  // Asked once: in the loop gcc asks for each key.
  if (connection::has_aes) [[likely]] {
    with([&](const auto& key) { return map.hasher().by_instruction(key); });
  } else {
    with([&](const auto& key) { return map.hasher().portable(key); });
  }
}

// classify_one() makes a packet the next one of its batch, which has n4 or n6 by now and is located
// later, or decides on it.
[[gnu::always_inline]] inline void packet_path::classify_one(std::size_t i, unsigned& n4,
                                                             unsigned& n6) noexcept {
  packet& p = burst_[i];
  const std::byte* const frame = p.data;
  if (p.length >= wire::common4_length) [[likely]] {
    if (const wire::common c = wire::parse_common4(frame, p.total_length); c != 0) [[likely]] {
      const auto& ip =
          *reinterpret_cast<const wire::ipv4_header*>(frame + sizeof(wire::ethernet_header));
      const std::uint64_t vip = vip_cache_.find4(view_, ip.destination, ip.protocol);
      if (vip != 0) [[likely]]
        return enter4(p, ip, *reinterpret_cast<const wire::udp_header*>(&ip + 1), vip, c, n4++);
      spell_out(i, c, 4);
      return judge_rest(i);
    }
  }
  if (p.length >= wire::common6_length) [[likely]] {
    if (const wire::common c = wire::parse_common6(frame, p.total_length); c != 0) [[likely]] {
      const auto& ip =
          *reinterpret_cast<const wire::ipv6_header*>(frame + sizeof(wire::ethernet_header));
      std::uint64_t destination[2];
      std::memcpy(destination, &ip.destination, 16);
      const std::uint64_t vip =
          vip_cache_.find6(view_, destination[0], destination[1], ip.next_header);
      if (vip != 0) [[likely]]
        return enter6(p, ip, *reinterpret_cast<const wire::udp_header*>(&ip + 1), vip, c, n6++);
      spell_out(i, c, 6);
      return judge_rest(i);
    }
  }
  batch4_.size = n4;
  batch6_.size = n6;
  classify_any(i);
  n4 = batch4_.size;
  n6 = batch6_.size;
}

void packet_path::classify() noexcept {
  const std::size_t size = burst_size_;
  if (wide_) {
    std::size_t i = wide4<false>(nullptr, 0, size);
    if (i != size) i = wide6<false>(nullptr, i, size);
    if (i != size) classify_mixed(i);
    return;
  }
  // Kept in registers; the batches' sizes are right whenever anything else is called.
  unsigned n4 = 0;
  unsigned n6 = 0;
  for (std::size_t i = 0; i < size;) {
    // In one go with the rest, the long way from a key to its bucket would leave the processor no
    // room to work on the next packets meanwhile; the whole burst at once would keep the memory
    // idle.
    const std::size_t end = std::min(i + located_at_once, size);
    const unsigned from4 = n4;
    const unsigned from6 = n6;
    for (; i < end; ++i) classify_one(i, n4, n6);
    locate(batch4_, table_.v4, from4, n4);
    locate(batch6_, table_.v6, from6, n6);
  }
  batch4_.size = n4;
  batch6_.size = n6;
}

// classify_narrow() takes one packet to its batch, located, or decides on it.
[[gnu::noinline]] void packet_path::classify_narrow(std::size_t i) noexcept {
  const unsigned from4 = batch4_.size;
  const unsigned from6 = batch6_.size;
  unsigned n4 = from4;
  unsigned n6 = from6;
  classify_one(i, n4, n6);
  locate(batch4_, table_.v4, from4, n4);
  locate(batch6_, table_.v6, from6, n6);
  batch4_.size = n4;
  batch6_.size = n6;
}

// classify_mixed() deals with packets i.. of a burst in which families or odd packets alternate:
// each family by itself, in its order, up to the next that is neither.
[[gnu::noinline]] void packet_path::classify_mixed(std::size_t i) noexcept {
  static_assert(max_burst <= 256);
  constexpr std::size_t few_in_a_row = 4;
  constexpr std::uint16_t type4 = be16{static_cast<std::uint16_t>(ether_type::ipv4)}.raw();
  constexpr std::uint16_t type6 = be16{static_cast<std::uint16_t>(ether_type::ipv6)}.raw();
  std::array<std::uint8_t, max_burst> four;
  std::array<std::uint8_t, max_burst> six;
  while (i < burst_size_) {
    unsigned fours = 0;
    unsigned sixes = 0;
    for (; i < burst_size_; ++i) {
      const std::uint16_t type = type_of(burst_[i]);
      if (type != type4 && type != type6) [[unlikely]]
        break;
      // Counted or not: without a branch.
      four[fours] = six[sixes] = static_cast<std::uint8_t>(i);
      fours += type == type4;
      sixes += type == type6;
    }
    // Where there are many odd ones eight at once are mostly in vain, and seldom tried.
    const auto one_by_one = [this](const auto& list, std::size_t from, std::size_t at,
                                   std::size_t size) {
      const std::size_t end = std::min(at + (at - from < few_in_a_row ? 8 : 1), size);
      for (; at < end; ++at) classify_narrow(list[at]);
      return at;
    };
    for (std::size_t at = 0; at < fours;)
      at = one_by_one(four, at, wide4<true>(four.data(), at, fours), fours);
    for (std::size_t at = 0; at < sixes;)
      at = one_by_one(six, at, wide6<true>(six.data(), at, sixes), sixes);
    for (; i < burst_size_; ++i) {
      const std::uint16_t type = type_of(burst_[i]);
      if (type == type4 || type == type6) break;
      classify_narrow(i);
    }
  }
}

[[gnu::noinline]] void packet_path::classify_any(std::size_t i) noexcept {
  packet& p = burst_[i];
  begin_packet(p);
  wire::parsed& m = parsed_[i];
  m = wire::parse_any(p.data, p.length, p.total_length);
  if (!wire::has_ports(m.kind)) return judge_rest(i);
  const auto& ports = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  const auto fragment_stays = [&] {
    return m.kind != parse_kind::first_fragment ||
           (note_fragment(i) && !(nat_active_ && first_fragment_of_other(i)));
  };
  if (m.version == 4) {
    const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
    if (const std::uint64_t vip = vip_cache_.find4(view_, ip.destination, m.protocol); vip != 0) {
      if (fragment_stays()) enter4(p, ip, ports, vip, already_spelled(m), batch4_.size++);
      return;
    }
  } else {
    const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3);
    const ip_address destination = ip_address::v6(ip.destination);
    if (const std::uint64_t vip =
            vip_cache_.find6(view_, destination.high(), destination.low(), m.protocol);
        vip != 0) {
      if (fragment_stays()) enter6(p, ip, ports, vip, already_spelled(m), batch6_.size++);
      return;
    }
  }
  judge_rest(i);
}

void packet_path::begin_packet(packet& p) noexcept {
  p.backend = {};
  p.service = abi::no_service;
  p.reason = counter_id::count_;
  p.why = kernel_reason::none;
}

void packet_path::spell_out(std::size_t i, wire::common c, std::uint8_t version) noexcept {
  parsed_[i] = wire::spelled_out(c, version);
  begin_packet(burst_[i]);
}

[[gnu::always_inline]] inline void packet_path::enter4(packet& p, const wire::ipv4_header& ip,
                                                       const wire::udp_header& ports,
                                                       std::uint64_t vip_bits, wire::common c,
                                                       unsigned n) noexcept {
  batch4_.packets[n] = &p;
  batch4_.commons[n] = c;
  // TCP and UDP begin with the same two ports.
  std::uint32_t both;
  std::memcpy(&both, &ports, 4);
  const std::uint64_t tuple = std::uint64_t{both} << 32 | ip.source.raw();
  batch4_.keys[n].tuple = tuple;
  batch4_.keys[n].vip_bits = vip_bits;
}

[[gnu::always_inline]] inline void packet_path::enter6(packet& p, const wire::ipv6_header& ip,
                                                       const wire::udp_header& ports,
                                                       std::uint64_t vip_bits, wire::common c,
                                                       unsigned n) noexcept {
  batch6_.packets[n] = &p;
  batch6_.commons[n] = c;
  const auto key = connection::key6::make(ip_address::v6(ip.source), ports.source_port,
                                          ports.destination_port, vip_bits);
  batch6_.keys[n] = key;
}

// judge_rest() decides on everything that does not go on to a service's connections.
// Faults count only in packets to a service's address: the rest is the kernel's.
[[gnu::noinline]] void packet_path::judge_rest(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  switch (m.kind) {
    case parse_kind::not_ip:
      return leave(p, kernel_reason::not_ip, counter_id::drop_not_for_us);
    case parse_kind::group_frame:
      return leave(p, kernel_reason::group_frame, counter_id::drop_not_for_us);
    case parse_kind::unreadable:
      return drop(p, m.fault);
    case parse_kind::flow:
    case parse_kind::first_fragment:
    case parse_kind::fragment:
    case parse_kind::other:
    case parse_kind::fault:
      break;
  }
  if (view_.empty()) return drop(p, counter_id::drop_no_tables);
  const auto icmp = m.version == 4 ? ip_proto::icmp : ip_proto::icmpv6;
  const ip_address destination = wire::destination_of(p, m);
  // What has ports has been looked for by its own protocol before.
  const bool asked = wire::has_ports(m.kind);
  const auto has_services = [&](ip_proto protocol) {
    return !(asked && m.protocol == number(protocol)) &&
           view_.find_vip(destination, number(protocol)) != nullptr;
  };
  if (!has_services(ip_proto::tcp) && !has_services(ip_proto::udp)) {
    if (m.kind == parse_kind::other && m.protocol == number(icmp) &&
        (error_about_tunnel(i) || (nat_active_ && error_to_client(i))))
      return;
    if (nat_active_ && m.kind == parse_kind::flow && answer(i)) return;
    if (nat_active_ &&
        (m.kind == parse_kind::first_fragment ||
         (m.kind == parse_kind::fragment && may_follow(m))) &&
        fragment_of_reply(i))
      return;
    return leave(p, kernel_reason::not_for_a_vip, counter_id::drop_not_for_us);
  }
  if (m.kind == parse_kind::fault) return drop(p, m.fault);
  if (wire::has_ports(m.kind))  // the address has services of the other protocol only
    return leave(p, kernel_reason::no_service_port, counter_id::drop_no_service_port);
  if (m.kind == parse_kind::fragment && may_follow(m)) {
    if (is_transport(m.protocol) && view_.find_vip(destination, m.protocol) == nullptr)
      return leave(p, kernel_reason::no_service_port, counter_id::drop_no_service_port);
    note_fragment(i);
    return;
  }
  if (m.kind == parse_kind::other && m.protocol == number(icmp)) return icmp_to_vip(i);
  leave(p, m.protocol == number(icmp) ? kernel_reason::icmp : kernel_reason::other_protocol,
        counter_id::drop_unsupported_protocol);
}

void packet_path::drop(packet& p, counter_id reason) noexcept {
  p.outcome = verdict::drop;
  p.reason = reason;
  counters_.worker[static_cast<std::size_t>(reason)].add(1);
  if (const auto s = static_cast<std::uint32_t>(p.service); s < counters_.service_rows)
    counters_.services[s].dropped.add(1);
}

void packet_path::leave(packet& p, kernel_reason why, counter_id otherwise) noexcept {
  if (p.in_port >= port_count_ || (kernel_ports_ >> p.in_port & 1) == 0) return drop(p, otherwise);
  p.outcome = verdict::kernel;
  p.why = why;
  ++tally_.to_kernel;
}

std::size_t packet_path::maintain(std::uint64_t now_ns) noexcept {
  loads_.refresh(view_, {states_.get(), counters_.service_rows});
  tables_->quic.go_on(view_);
  forget_released();
  expire_waiting(now_ns);
  std::size_t gone = 0;
  if (flush_begins_) {
    flush_begins_ = false;
    // Longer than the connections take: than the round of the NAT sessions.
    flush_until_ns_ = now_ns + 21'000'000'000;
    sweeper_.begin_round(table_);
  }
  const bool flushing = now_ns < flush_until_ns_ && !view_.empty();
  const auto forgotten = [&](abi::backend_ref ref) {
    return flushing && view_.backend(ref) == nullptr;
  };
  sweeper_.step(
      table_, now_ns, [&](abi::connection_word w) { return forgotten(w.backend()); },
      [&](abi::connection_word w) {
        ++gone;
        count_closed(w.backend());
      });
  if (gone != 0) {
    counters_.worker[static_cast<std::size_t>(counter_id::connections_closed)].add(gone);
    counters_.worker[static_cast<std::size_t>(counter_id::connections_expired)].add(gone);
  }
  if (nat_ != nullptr)
    nat_->sweep(
        now_ns, table_.clock(now_ns), [&](const nat_session& s) { return forgotten(s.backend); },
        [this](const nat_session&) { count(counter_id::nat_sessions_closed); });
  return gone;
}

}  // namespace sluice
