// SPDX-License-Identifier: Apache-2.0
// ICMP errors about translated flows (RFC 5508 section 4), both ways. Their quote becomes what
// its addressee has sent: addresses, ports, the sequence number where a header was put in
// front of the stream. Their own addresses are translated as the flow's packets would be.
#include <algorithm>

#include "dataplane/packet/icmp_error.hpp"
#include "dataplane/path/nat_stream.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::counter_id;
using wire::quoted;

namespace {

std::uint32_t sequence_in(const packet& p, const quoted& q) noexcept {
  return reinterpret_cast<const wire::tcp_header*>(p.data + q.l4)->sequence.host();
}

constexpr bool quotes_tcp(const quoted& q) noexcept {
  return q.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
}

// told_to_client() is the MTU that a client has to be told: what we put into its packet does
// not fit, either. 0: as it is.
std::uint32_t told_to_client(const packet& p, const wire::parsed& m, const quoted& q,
                             const nat_session& s) noexcept {
  const auto& icmp = *reinterpret_cast<const wire::icmp_header*>(p.data + m.l4);
  const std::uint32_t mtu = wire::mtu_of(m.version, icmp);
  if (mtu == 0 || !quotes_tcp(q)) return 0;
  const std::uint32_t end = std::uint32_t{m.l3} + m.ip_length;
  const std::uint32_t grown = nat::grown_by(s, {p.data + q.l4, end - q.l4});
  if (grown == 0) return 0;
  const std::uint32_t least = m.version == 4 ? 68 : wire::max_error6;
  return mtu > grown + least ? mtu - grown : least;
}

}  // namespace

// error_to_client() looks at an ICMP packet that is not to a VIP. If it is an error about a
// packet that went to a nat or full-nat backend, its client gets it, in the VIP's name: who
// has sent it is inside, where clients see nothing (RFC 5508, REQ-5). False: it is none.
bool packet_path::error_to_client(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const std::uint32_t end = std::uint32_t{m.l3} + m.ip_length;
  if (end > p.length) return false;
  const std::span<const std::byte> bytes{p.data, end};
  const auto* icmp = wire::at<wire::icmp_header>(bytes, m.l4);
  if (icmp == nullptr || !wire::is_icmp_error(m.version, icmp->type)) return false;
  const quoted q = wire::parse_quoted(bytes, m.l4 + sizeof(wire::icmp_header));
  const ip_address destination = wire::destination_of(p, m);
  if (q.what != quoted::kind::flow || q.version != m.version || q.source != destination)
    return false;
  const wire::flow_ends reply{q.destination, q.source, q.destination_port, q.source_port};
  nat_session* s = nat_->find_reply(reply, q.protocol);
  if (s == nullptr) {
    if (hand_over_reply(p, reply, q.protocol, false)) return true;
    if (!nat_->in_pool(destination)) return false;
    leave(p, kernel_reason::icmp, counter_id::drop_icmp_unmatched);
    return true;
  }
  p.backend = s->backend;
  if (const abi::backend_row* row = view_.backend(s->backend); row != nullptr)
    p.service = row->service;
  const counter_id why = !wire::message_holds(p.data, m) ? counter_id::drop_bad_icmp
                         : wire::hop_limit_of(p, m) <= 1 ? counter_id::drop_ttl_expired
                         : s->in_port >= port_count_     ? counter_id::drop_no_next_hop
                                                         : counter_id::count_;
  if (why != counter_id::count_) {
    drop(p, why);
    return true;
  }
  const wire::flow_ends client = s->to_client();
  wire::retold to{client, {s->client, s->vip, s->client_port, s->vip_port}, 0, 0};
  if (quotes_tcp(q)) to.sequence = nat::client_sequence(*s, sequence_in(p, q));
  to.mtu = told_to_client(p, m, q, *s);
  wire::retell(p.data, m, q, to);
  wire::route(p.data, m);
  wire::write_macs(p.data, wire::to_word(s->client_mac), port_macs_[s->in_port]);
  p.outcome = verdict::forward;
  p.out_port = s->in_port;
  count(counter_id::nat_errors_to_client);
  return true;
}

// error_to_backend() sends a sound error that came to a VIP, about a packet that we have translated
// on its way to a client, to the backend that has sent it. Who sent it stays (RFC 5508, REQ-4),
// but to a backend of full-nat, which knows nobody but us.
void packet_path::error_to_backend(std::size_t i, const quoted& q) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const wire::flow_ends name{q.destination, q.source, q.destination_port, q.source_port};
  const nat_session* s = nat_active_ ? nat_->find_forward(name, q.protocol) : nullptr;
  if (s == nullptr) {
    if (hand_over_to_holder(p, name, q.protocol)) return;
    return drop(p, counter_id::drop_icmp_unmatched);
  }
  const abi::backend_row* row = view_.backend(s->backend);
  if (row == nullptr) return drop(p, counter_id::drop_icmp_unmatched);
  p.backend = s->backend;
  const hop_words hop = hop_words::of(*row);
  if (!hop.has(abi::backend_has_next_hop) || hop.out_port() >= port_count_)
    return drop(p, counter_id::drop_no_next_hop);
  if (m.ip_length > hop.mtu()) return drop(p, counter_id::drop_too_big);
  const wire::flow_ends from = wire::ends_of(p.data, m);
  wire::retold to{{}, {s->server, s->local, s->server_port, s->local_port}, 0, 0};
  to.outer.source = (s->flags & nat_full) != 0 ? s->local : from.source;
  to.outer.destination = s->server;
  if (quotes_tcp(q)) to.sequence = sequence_in(p, q);
  wire::retell(p.data, m, q, to);
  wire::route(p.data, m);
  wire::write_macs(p.data, hop.next_hop(), port_macs_[hop.out_port()]);
  count_sent(i, s->backend, hop.service(), hop.out_port());
  count(counter_id::nat_errors_to_backend);
}

}  // namespace sluice
