// SPDX-License-Identifier: Apache-2.0
// Fragments: the first one has ports and goes where its flow goes; the others follow it,
// whichever came first.
//
// A burst's fragments are noted in stage 1 and settled when the flows are decided on, so
// that the order within a burst does not matter. What comes earlier than its first fragment
// is held: the owner keeps the buffer, and gets it named by released() when the first
// fragment has come, or has not come in time.
#include <bit>

#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::counter_id;
using fate = fragment_table::fate;

// note_fragment() remembers a fragment to an address with services for settle_fragments().
// False: another worker's. Where flows have owners, a datagram's fragments meet at one by their
// addresses alone; the first one then goes on to its flow's owner, and the others follow it.
bool packet_path::note_fragment(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  fragment_note& note = notes_[note_count_++];
  note.at = static_cast<std::uint8_t>(i);
  note.first = m.kind == wire::parse_kind::first_fragment;
  note.session = fragment_table::no_session;
  if (m.version == 4) {
    const auto& ip = *reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3);
    note.key = {ip_address::v4(ip.source), ip_address::v4(ip.destination), ip.id.raw(), m.protocol};
  } else {
    const auto& ip = *reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3);
    const auto& fragment = *reinterpret_cast<const wire::ipv6_fragment*>(p.data + m.fragment_at);
    note.key = {ip_address::v6(ip.source), ip_address::v6(ip.destination), fragment.id.raw(), 0};
  }
  // Under the table's secret: nobody outside can aim at a set.
  const auto key = connection::key6::make(
      note.key.source, be16::from_raw(static_cast<std::uint16_t>(note.key.id)),
      be16::from_raw(static_cast<std::uint16_t>(note.key.id >> 16)), abi::vip_id{});
  note.hash = sluice_mix64(table_.v6.hash(key).value ^ note.key.destination.low() ^
                           std::rotl(note.key.destination.high(), 32) ^ note.key.protocol);
  if (!hand_over(p, note.key.source, note.key.destination, be16{}, be16{})) return true;
  --note_count_;
  return false;
}

// settle_fragments() decides on the later fragments of a burst, and on those held that have
// waited for one of its first fragments.
[[gnu::noinline]] void packet_path::settle_fragments() noexcept {
  const unsigned before = released_count_;
  for (unsigned k = 0; k < note_count_; ++k) {
    const fragment_note& note = notes_[k];
    if (!note.first) continue;
    const packet& p = burst_[note.at];
    fate what = fate::dropped;
    if (p.outcome == verdict::forward || p.outcome == verdict::reply) what = fate::backend;
    if (p.outcome == verdict::kernel) what = fate::kernel;
    if (p.outcome == verdict::hand_over) what = fate::elsewhere;
    fragments_.enter(note.hash, note.key, what, p.backend, p.out_port, note.session, now_ns_);
    waiting_.leave(note.hash, note.key,
                   [this](std::size_t place, const packet& guest) { release(place, guest); });
  }
  for (unsigned k = 0; k < note_count_; ++k) {
    const fragment_note& note = notes_[k];
    if (note.first) continue;
    packet& p = burst_[note.at];
    if (const auto* known = fragments_.find(note.hash, note.key, now_ns_); known != nullptr) {
      follow(note.at, *known);
      continue;
    }
    const std::size_t place = waiting_.enter(note.hash, note.key, p, now_ns_);
    if (place == waiting_places) {
      drop(p, counter_id::drop_fragment_room);
      continue;
    }
    p.outcome = verdict::held;
    p.place = static_cast<std::uint8_t>(place);
    count(counter_id::fragments_waited);
  }
  note_count_ = 0;
  if (released_count_ == before) return;
  // Those released are a burst of their own.
  burst_ = released_.data();
  for (unsigned k = before; k < released_count_; ++k) {
    packet& p = burst_[k];
    parsed_[k] = wire::parse_any(p.data, p.length, p.total_length);
    // It was ours when it came, and is: owners do not change.
    if (!note_fragment(k)) continue;
    const fragment_note& note = notes_[--note_count_];
    const auto* known = fragments_.find(note.hash, note.key, now_ns_);
    if (known != nullptr) {
      follow(k, *known);
    } else {  // its set was full of first fragments of this very burst
      drop(p, counter_id::drop_fragment);
    }
  }
}

// follow() sends a fragment where the first one of its datagram went.
void packet_path::follow(std::size_t i, const fragment_table::entry& known) noexcept {
  packet& p = burst_[i];
  switch (known.what) {
    case fate::backend: {
      if (known.session != fragment_table::no_session) return follow_translated(i, known);
      const abi::backend_row* row = view_.empty() ? nullptr : view_.backend(known.backend);
      if (row == nullptr) break;
      const abi::service_row* s = view_.service(row->service);
      const abi::service_options* o = s != nullptr ? abi::options_of(view_, *s) : nullptr;
      if (o != nullptr && !within_packet_rate(*s, *o)) {
        p.service = s->self;
        return drop(p, counter_id::drop_packet_rate);
      }
      send(i, known.backend);
      if (p.outcome == verdict::forward) count(counter_id::fragments_followed);
      return;
    }
    case fate::elsewhere:
      if (hand_over_to(p, known.worker)) return;
      break;
    case fate::kernel:
      return leave(p, kernel_reason::no_service_port, counter_id::drop_no_service_port);
    case fate::dropped:
    case fate::none:
      break;
  }
  drop(p, counter_id::drop_fragment);
}

// release() takes a packet out of the waiting room into released().
void packet_path::release(std::size_t place, const packet& guest) noexcept {
  packet& p = released_[released_count_++];
  p = guest;
  p.place = static_cast<std::uint8_t>(place);
  p.backend = {};
  p.service = abi::no_service;
  p.reason = counter_id::count_;
  p.why = kernel_reason::none;
}

// forget_released() begins a call: what the one before has released is gone by now.
void packet_path::forget_released() noexcept {
  if (released_count_ == 0) return;
  released_count_ = 0;
  waiting_.free_left();
}

// expire_waiting() gives up on those that have waited for too long.
void packet_path::expire_waiting(std::uint64_t now_ns) noexcept {
  if (waiting_.empty()) return;
  waiting_.leave_late(now_ns, [this](std::size_t place, const packet& guest) {
    release(place, guest);
    packet& p = released_[released_count_ - 1];
    const wire::parsed m = wire::parse_any(p.data, p.length, p.total_length);
    const ip_address to = wire::destination_of(p, m);
    const bool ours = view_.empty() || nat_ == nullptr || nat_->in_pool(to) ||
                      view_.find_vip(to, static_cast<std::uint8_t>(ip_proto::tcp)) != nullptr ||
                      view_.find_vip(to, static_cast<std::uint8_t>(ip_proto::udp)) != nullptr;
    if (ours || (kernel_ports_ >> p.in_port & 1) == 0) return drop(p, counter_id::drop_fragment);
    // Of a backend, but no reply that we would translate.
    p.outcome = verdict::kernel;
    p.why = kernel_reason::not_for_a_vip;
    count(counter_id::to_kernel);
  });
}

}  // namespace sluice
