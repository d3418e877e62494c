// SPDX-License-Identifier: Apache-2.0
// What only services with options ask of a packet (abi/service_options.hpp): lists, limits,
// SYN floods, persistence, QUIC. Called from newcomers.cpp, for packets that are not simply
// hits of a service without all that.
#include <algorithm>
#include <span>

#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/path/hit_table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "dataplane/path/source_of.hpp"

namespace sluice {

using abi::counter_id;

namespace {

constexpr counter_id fine = counter_id::count_;

constexpr std::uint64_t for_rates = 1;
constexpr std::uint64_t for_persistence = 2;

std::uint32_t seconds(std::uint64_t ns) noexcept {
  return static_cast<std::uint32_t>(ns / ns_per_second);
}

}  // namespace

service_state* packet_path::state_of(const abi::service_row& s) noexcept {
  const auto id = static_cast<std::uint32_t>(s.self);
  return id < counters_.service_rows ? &states_[id] : nullptr;
}

// let_in() tells whether a packet that is no simple hit may go on, else why not. stranger: it
// has no connection, or begins another, and the lists are asked; rated: the packet rate has
// been asked already.
[[gnu::noinline]] counter_id packet_path::let_in(std::size_t i, const abi::service_row& s,
                                                 const abi::service_options* options, bool stranger,
                                                 bool rated) noexcept {
  if (options == nullptr) return fine;
  const abi::service_options o = *options;
  if (stranger && (o.deny_list != abi::no_list || o.allow_list != abi::no_list)) {
    const ip_address source = source_of(burst_[i], parsed_[i]);
    if ((o.deny_list != abi::no_list && view_.in_list(o.deny_list, source)) ||
        (o.allow_list != abi::no_list && !view_.in_list(o.allow_list, source)))
      return counter_id::drop_denied;
  }
  return rated || within_packet_rate(s, o) ? fine : counter_id::drop_packet_rate;
}

bool packet_path::within_packet_rate(const abi::service_row& s,
                                     const abi::service_options& o) noexcept {
  if ((s.flags & abi::service_counts_packets) == 0) return true;
  service_state* state = state_of(s);
  return state == nullptr || state->packets.take(o.packet_rate, now_ns_);
}

// begin() tells whether a connection may begin, else why not. flooded: it gets no entry.
counter_id packet_path::begin(std::size_t i, const abi::service_row& s,
                              const abi::service_options& o, bool& flooded) noexcept {
  service_state* state = state_of(s);
  if (state == nullptr) return fine;
  // All SYNs tell of a flood, also those that are dropped.
  flooded = is_tcp(parsed_[i]) && state->syns.flooded(o.syn_flood_rate, now_ns_);
  if (o.source_connection_rate != 0 &&
      !tables_->sources.take(
          table_.v6.hash(source_key(i, s, o.source_prefix4, o.source_prefix6, for_rates)).value,
          o.source_connection_rate, now_ns_))
    return counter_id::drop_source_rate;
  return state->connections.take(o.connection_rate, now_ns_) ? fine
                                                             : counter_id::drop_connection_rate;
}

// source_key() is a packet's source prefix and service, to be hashed under a secret.
connection::key6 packet_path::source_key(std::size_t i, const abi::service_row& s, unsigned bits4,
                                         unsigned bits6, std::uint64_t purpose) const noexcept {
  const ip_address source = abi::cut(source_of(burst_[i], parsed_[i]), bits4, bits6);
  return {source.high(), source.low(), static_cast<std::uint64_t>(s.self), purpose};
}

// persistent() is where the source's earlier connections went, if that backend takes new ones.
abi::backend_ref packet_path::persistent(std::size_t i, const abi::service_row& s,
                                         const abi::service_options& o) const noexcept {
  if (o.persistence_timeout == 0) return {};
  const abi::backend_ref ref =
      persistence_->find(persistence_->hash(source_key(i, s, o.persistence_prefix4,
                                                       o.persistence_prefix6, for_persistence)),
                         seconds(now_ns_), o.persistence_timeout);
  const abi::backend_row* row = ref.none() ? nullptr : view_.backend(ref);
  return row != nullptr && row->service == s.self && row->weight != 0 ? ref : abi::backend_ref{};
}

void packet_path::remember(std::size_t i, const abi::service_row& s, const abi::service_options& o,
                           abi::backend_ref ref) noexcept {
  persistence_->enter(persistence_->hash(source_key(i, s, o.persistence_prefix4,
                                                    o.persistence_prefix6, for_persistence)),
                      ref, seconds(now_ns_));
}

// by_quic_id() is the backend that a datagram's connection id names, if it keeps connections.
abi::backend_ref packet_path::by_quic_id(std::size_t i, const abi::service_row& s,
                                         const abi::service_options& o) const noexcept {
  const packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  if (o.quic_id_length == 0 || is_tcp(m)) return {};
  // What is there, what IP says, what UDP says.
  const std::uint32_t payload = m.l4 + std::uint32_t{sizeof(wire::udp_header)};
  const auto& udp = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  const std::uint32_t end = std::min(
      {p.length, std::uint32_t{m.l3} + m.ip_length, std::uint32_t{m.l4} + udp.length.host()});
  if (end <= payload) return {};
  const quic::server_id id = quic::find_server_id(std::span{p.data + payload, p.data + end},
                                                  o.quic_id_offset, o.quic_id_length);
  return id.length == 0 ? abi::backend_ref{} : tables_->quic.find(view_, s.self, id);
}

// every_packet() looks at a hit of a service that has options. never_ready: the next hit has
// to be looked at, too; ended: the packet has been decided on.
[[gnu::noinline]] packet_path::course packet_path::every_packet(std::size_t i,
                                                                const abi::service_row& s,
                                                                abi::backend_ref ref,
                                                                bool rated) noexcept {
  const abi::service_options* options = view_.options(s.self);
  if (options == nullptr) return course::as_ever;
  const abi::service_options o = *options;
  const bool counts = (s.flags & abi::service_counts_packets) != 0;
  if (!counts && o.quic_id_length == 0) return course::as_ever;
  if (!rated && !within_packet_rate(s, o)) {
    burst_[i].service = s.self;
    drop(burst_[i], counter_id::drop_packet_rate);
    return course::ended;
  }
  const abi::backend_ref named = by_quic_id(i, s, o);
  if (named.none() || named == ref) return course::never_ready;
  // A client came to this address and port whose connection is elsewhere. The entry stays: it
  // is for packets whose id says nothing.
  count(counter_id::quic_by_id);
  send(i, named);
  return course::ended;
}

}  // namespace sluice
