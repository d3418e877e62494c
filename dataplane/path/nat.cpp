// SPDX-License-Identifier: Apache-2.0
// nat and full-nat: a client's packet gets the backend as its destination (full-nat: an
// address and port of ours as its source), the backend's reply goes back to the client. The
// path knows no routes: a reply leaves by the port, and to the MAC address, from which the
// client's packets come.
#include "dataplane/path/nat_stream.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::connection_state;
using abi::counter_id;
using connection::step;

namespace {

bool tcp_in(const wire::parsed& m) noexcept {
  return m.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
}

// note_begin() is what a session remembers of the packet that begins it, or begins it again.
void note_begin(nat_session& s, const packet& p, const wire::parsed& m) noexcept {
  s.flags &= nat_full | nat_toa | nat_proxy;
  if (!tcp_in(m) || (m.tcp_flags & connection::tcp_syn) == 0) return;
  s.client_sequence = reinterpret_cast<const wire::tcp_header*>(p.data + m.l4)->sequence.host();
  s.flags |= nat_client_known;
}

}  // namespace

void packet_path::use_nat(nat_table* nat, std::span<const nat_table* const> all) noexcept {
  nat_ = nat;
  all_nat_ = all;
  nat_active_ =
      nat_ != nullptr && !view_.empty() && (view_.header().flags & abi::generation_has_nat) != 0;
  if (nat_active_) {
    nat_->set_timeouts(view_.header().timeouts);
    nat_->set_pool(view_.pool());
  }
}

// nat_session_for() finds or begins the session of a client's packet for a backend. Null:
// `why` is the reason to drop it.
nat_session* packet_path::nat_session_for(const packet& p, const wire::parsed& m,
                                          abi::backend_ref ref, const ip_address& server,
                                          hop_words to, counter_id& why) noexcept {
  const auto next = [&m](connection_state state) {
    return tcp_in(m) ? connection::tcp_next(state, m.tcp_flags) : connection::udp_next(state);
  };
  const wire::flow_ends ends = wire::ends_of(p.data, m);
  const bool full = to.mode() == abi::forward_mode::full_nat;
  const be16 port = to.port() != 0 ? be16{to.port()} : ends.destination_port;
  nat_session* s = nat_->find_forward(ends, m.protocol);
  if (s != nullptr && (s->backend != ref || s->server != server || s->server_port != port ||
                       ((s->flags & nat_full) != 0) != full || nat_->expired(*s, now_))) {
    count(counter_id::nat_sessions_closed);
    nat_->close(*s);
    s = nullptr;
  }
  connection_state state;
  if (s != nullptr) {
    const connection::transition t = next(s->state);
    if (t.step == step::renew) note_begin(*s, p, m);
    state = t.step == step::renew || t.step == step::keep ? t.next : s->state;
  } else {
    const connection::transition t = next(connection_state::free);
    if (t.step != step::create) {
      why = counter_id::drop_nat_unmatched;
      return nullptr;
    }
    s = nat_->open(ends, m.protocol, server, port, full, now_, why,
                   [this](const nat_session&) { count(counter_id::nat_sessions_closed); });
    if (s == nullptr) return nullptr;
    count(counter_id::nat_sessions_opened);
    s->backend = ref;
    state = t.next;
    if (const abi::service_options* o =
            full && tcp_in(m) ? view_.options(static_cast<abi::service_id>(to.service())) : nullptr;
        o != nullptr) {
      const abi::client_address how = o->client;
      if (how == abi::client_address::toa) s->flags |= nat_toa;
      if (how == abi::client_address::proxy_v2) s->flags |= nat_proxy;
    }
    note_begin(*s, p, m);
  }
  s->seen = now_;
  s->in_port = p.in_port;
  std::memcpy(s->client_mac.data(), p.data + 6, s->client_mac.size());
  nat_table::set_state(*s, state);
  return s;
}

// translate() sends a client's packet to a backend of nat or full-nat.
[[gnu::noinline]] void packet_path::translate(std::size_t i, abi::backend_ref ref,
                                              const abi::backend_row& row, hop_words to) noexcept {
  packet& p = burst_[i];
  wire::parsed& m = parsed_[i];
  const ip_address server = row.address;
  translated_ = nullptr;
  if (!nat_active_) return drop(p, counter_id::drop_nat_no_room);
  if (m.kind == wire::parse_kind::other) return drop(p, counter_id::drop_icmp_unmatched);
  // A later fragment comes here only if its first one was not translated.
  if (!wire::has_ports(m.kind)) return drop(p, counter_id::drop_fragment);
  if (server.is_v4() != (m.version == 4)) return drop(p, counter_id::drop_bad_table);
  if (m.ip_length > to.mtu()) return too_big(i, to.mtu(), 0);
  counter_id why = counter_id::drop_nat_no_room;
  nat_session* s = nat_session_for(p, m, ref, server, to, why);
  if (s == nullptr) return drop(p, why);
  nat::edit edit;
  if (tcp_in(m)) {
    why = nat::to_backend(p, m, *s, to.mtu(), edit);
    if (why == counter_id::drop_too_big) return too_big(i, to.mtu(), edit.size);
    if (why != counter_id::count_) return drop(p, why);
    if (edit.size != 0 && m.kind == wire::parse_kind::first_fragment) {
      // The others' offsets would be wrong. The option can wait, the header cannot.
      if (!edit.option) return drop(p, counter_id::drop_fragment);
      edit.size = 0;
    }
  }
  if (m.kind == wire::parse_kind::first_fragment) note_session(i, *s);
  if ((m.tcp_flags & connection::tcp_syn) != 0)
    clamp_mss(p.service, p.data + m.l4, std::min(p.length, m.l3 + m.ip_length) - m.l4);
  wire::readdress(p.data, m, s->to_server());
  wire::route(p.data, m);
  if (tcp_in(m)) nat::apply(p, m, edit);
  wire::write_macs(p.data, to.next_hop(), port_macs_[to.out_port()]);
  count_sent(i, ref, to.service(), to.out_port());
  translated_ = s;
}

// hand_over_reply() finds the worker that a reply belongs to. A port of the pool says whose it
// is; a reply that is addressed to its client is in the table of the worker that got the
// client's packets, by whatever rule. met: a first fragment, which may have been handed over
// to where its datagram's fragments meet, and goes on from there.
bool packet_path::hand_over_reply(packet& p, const wire::flow_ends& ends, std::uint8_t protocol,
                                  bool met) noexcept {
  if (all_nat_.size() < 2 || (accepts_all_ && !met)) return false;
  if (nat_->in_pool(ends.destination)) {
    const auto workers = static_cast<unsigned>(all_nat_.size());
    return hand_over_to(p, nat_table::owner_of_port(ends.destination_port, workers));
  }
  for (unsigned worker = 0; worker < all_nat_.size(); ++worker)
    if (worker != self_ && all_nat_[worker]->holds_reply(ends, protocol))
      return hand_over_to(p, worker);
  return false;
}

bool packet_path::hand_over_to_holder(packet& p, const wire::flow_ends& ends,
                                      std::uint8_t protocol) noexcept {
  if (accepts_all_) return false;
  for (unsigned worker = 0; worker < all_nat_.size(); ++worker)
    if (worker != self_ && all_nat_[worker]->holds_forward(ends, protocol))
      return hand_over_to(p, worker);
  return false;
}

// answer() takes a packet that is not for a VIP: a reply of a nat or full-nat backend goes
// back to its client. False: it is none.
[[gnu::noinline]] bool packet_path::answer(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const wire::flow_ends ends = wire::ends_of(p.data, m);
  nat_session* s = nat_->find_reply(ends, m.protocol);
  if (s == nullptr) {
    if (hand_over_reply(p, ends, m.protocol, m.kind == wire::parse_kind::first_fragment))
      return true;
    if (!nat_->in_pool(ends.destination)) return false;
    drop(p, counter_id::drop_nat_unmatched);
    return true;
  }
  p.backend = s->backend;
  const abi::backend_row* const row = view_.backend(s->backend);
  if (row != nullptr) p.service = row->service;
  if (s->in_port >= port_count_) {
    drop(p, counter_id::drop_no_next_hop);
    return true;
  }
  s->seen = now_;
  if (tcp_in(m)) {
    if ((m.tcp_flags & connection::tcp_rst) != 0) {
      // Once a connection, though what the client has still on its way is answered by another one.
      // What it was about to end, or has, is not the backend's to be blamed for.
      if (row != nullptr && counters_.resets != nullptr && (s->flags & nat_reset) == 0 &&
          s->state != connection_state::closed && s->state != connection_state::closing &&
          s->backend.index() < counters_.backend_rows)
        counters_.resets[s->backend.index()].add(1);
      s->flags |= nat_reset;
      s->state = connection_state::closed;
    }
    nat::from_backend(p, m, *s);
  }
  if (m.kind == wire::parse_kind::first_fragment) note_session(i, *s);
  pass_to_client(p, m, *s);
  return true;
}

void packet_path::pass_to_client(packet& p, const wire::parsed& m, const nat_session& s) noexcept {
  wire::readdress(p.data, m, s.to_client());
  wire::route(p.data, m);
  wire::write_macs(p.data, wire::to_word(s.client_mac), port_macs_[s.in_port]);
  p.outcome = verdict::forward;
  p.out_port = s.in_port;
  count(counter_id::nat_replies);
}

}  // namespace sluice
