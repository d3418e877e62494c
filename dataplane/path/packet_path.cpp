// SPDX-License-Identifier: Apache-2.0
// Stage 1 of the path: what is this packet, and is it for a service's address.
#include "dataplane/path/packet_path.hpp"

#include <algorithm>
#include <bit>

namespace sluice {

using abi::counter_id;
using wire::parse_kind;

namespace {

// How many packets ahead the headers are fetched: one memory latency (80 ns or so) at the
// 10 to 20 ns that a packet takes here.
constexpr std::size_t prefetch_ahead = 6;

// VIP and backend_ref in a connection_word; an egress's tag has the generation above.
constexpr unsigned connection_bits = abi::connection_word::time_shift;

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

// low_of() is ip_address::v4(raw).low(); high() is 0.
constexpr std::uint64_t low_of(be32 raw) noexcept {
  return std::uint64_t{raw.raw()} << 32 | 0xffff0000u;
}
static_assert(std::endian::native == std::endian::little);

}  // namespace

packet_path::packet_path(connection::connection_table& table, const path_counters& counters,
                         std::span<const path_port> ports) noexcept
    : table_{table},
      counters_{counters},
      port_count_{static_cast<unsigned>(std::min<std::size_t>(ports.size(), abi::max_ports))},
      egress_mask_{std::bit_ceil(std::clamp<std::size_t>(counters.backend_rows, 1, max_egress)) -
                   1},
      egress_{new egress[egress_mask_ + 1]{}},            // lint: cold
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
  for (unsigned i = 0; i < port_count_; ++i) {
    port_macs_[i] = wire::to_word(ports[i].mac);
    kernel_ports_ |= std::uint32_t{ports[i].leaves_rest_to_kernel} << i;
  }
}

void packet_path::set_view(const abi::config_view& view) noexcept {
  view_ = view;
  echo_known_ = false;
  nat_backends_known_ = false;
  // The tags of all generations before are void; after 2^24 generations they would not be.
  generation_tag_ += std::uint64_t{1} << connection_bits;
  if (generation_tag_ == 0) {
    for (std::size_t i = 0; i <= egress_mask_; ++i) egress_[i].tag = 0;
    generation_tag_ = std::uint64_t{1} << connection_bits;
  }
  tables_->quic.take_up(view_);
  nat_active_ = false;
  if (view_.empty()) return;
  table_.set_timeouts(view_.header().timeouts);
  use_nat(nat_, all_nat_);
}

void packet_path::process(std::span<packet> burst, std::uint64_t now_ns) noexcept {
  const std::uint16_t now = table_.clock(now_ns);
  now_ns_ = now_ns;
  forget_released();
  for (; burst.size() > max_burst; burst = burst.subspan(max_burst))
    process_some(burst.first(max_burst), now);
  process_some(burst, now);
}

void packet_path::process_some(std::span<packet> burst, std::uint16_t now) noexcept {
  burst_ = burst.data();
  now_ = now;
  tally_ = {};
  batch4_.size = 0;
  batch6_.size = 0;

  const std::size_t n = burst.size();
  for (std::size_t i = 0; i < std::min(n, prefetch_ahead); ++i) __builtin_prefetch(burst[i].data);
  for (std::size_t i = 0; i < n; ++i) {
    if (i + prefetch_ahead < n) __builtin_prefetch(burst[i + prefetch_ahead].data);
    classify(i);
  }
  if (batch4_.size != 0) resolve(batch4_, table_.v4);
  if (batch6_.size != 0) resolve(batch6_, table_.v6);
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

inline void packet_path::classify(std::size_t i) noexcept {
  packet& p = burst_[i];
  p.backend = {};
  p.service = abi::no_service;
  p.reason = counter_id::count_;
  p.why = kernel_reason::none;
  wire::parsed& m = parsed_[i];
  if (p.length < wire::common_length || !wire::parse_common(p.data, p.total_length, m))
      [[unlikely]] {
    classify_any(i);
    return;
  }
  const auto& ip =
      *reinterpret_cast<const wire::ipv4_header*>(p.data + sizeof(wire::ethernet_header));
  const abi::vip_row* vip =
      view_.empty() ? nullptr : view_.find_vip(0, low_of(ip.destination), m.protocol);
  if (vip == nullptr) [[unlikely]] {
    judge_rest(i);
    return;
  }
  enter4(i, *vip);
}

[[gnu::noinline]] void packet_path::classify_any(std::size_t i) noexcept {
  packet& p = burst_[i];
  wire::parsed& m = parsed_[i];
  if (p.length >= wire::common6_length && wire::parse_common6(p.data, p.total_length, m))
      [[likely]] {
    const abi::vip_row* vip =
        view_.empty() ? nullptr : view_.find_vip(wire::destination_of(p, m), m.protocol);
    return vip != nullptr ? enter6(i, *vip) : judge_rest(i);
  }
  m = wire::parse_any(p.data, p.length, p.total_length);
  if (wire::has_ports(m.kind) && !view_.empty()) {
    if (const abi::vip_row* vip = view_.find_vip(wire::destination_of(p, m), m.protocol);
        vip != nullptr) {
      if (m.kind == parse_kind::first_fragment &&
          (!note_fragment(i) || (nat_active_ && first_fragment_of_other(i))))
        return;
      if (m.version == 4) {
        enter4(i, *vip);
      } else {
        enter6(i, *vip);
      }
      return;
    }
  }
  judge_rest(i);
}

inline void packet_path::enter4(std::size_t i, const abi::vip_row& vip) noexcept {
  const packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
  // TCP and UDP begin with the same two ports.
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  vips_[i] = &vip;
  const unsigned n = batch4_.size++;
  batch4_.at[n] = static_cast<std::uint8_t>(i);
  const auto key = connection::key4::make(ip.source, l4.source_port, l4.destination_port, vip.id);
  batch4_.keys[n] = key;
  batch4_.hashes[n] = table_.v4.hash(key);
  table_.v4.prefetch(batch4_.hashes[n]);
}

void packet_path::enter6(std::size_t i, const abi::vip_row& vip) noexcept {
  const packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3);
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  vips_[i] = &vip;
  const unsigned n = batch6_.size++;
  batch6_.at[n] = static_cast<std::uint8_t>(i);
  const auto key = connection::key6::make(ip_address::v6(ip.source), l4.source_port,
                                          l4.destination_port, vip.id);
  batch6_.keys[n] = key;
  batch6_.hashes[n] = table_.v6.hash(key);
  table_.v6.prefetch(batch6_.hashes[n]);
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
  if (view_.find_vip(destination, number(ip_proto::tcp)) == nullptr &&
      view_.find_vip(destination, number(ip_proto::udp)) == nullptr) {
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
  sweeper_.step(table_, now_ns, [&](abi::connection_word w) {
    ++gone;
    count_closed(w.backend());
  });
  if (gone != 0) {
    counters_.worker[static_cast<std::size_t>(counter_id::connections_closed)].add(gone);
    counters_.worker[static_cast<std::size_t>(counter_id::connections_expired)].add(gone);
  }
  if (nat_ != nullptr)
    nat_->sweep(now_ns, table_.clock(now_ns),
                [this](const nat_session&) { count(counter_id::nat_sessions_closed); });
  return gone;
}

}  // namespace sluice
