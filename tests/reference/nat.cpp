// SPDX-License-Identifier: Apache-2.0
// nat and full-nat of the reference model: translations by the client's name for a flow and by
// the backend's.
#include <algorithm>

#include "tests/reference/path.hpp"

namespace sluice::reference {

using abi::connection_state;
using abi::counter_id;
using abi::forward_mode;

namespace {

mac sender_of(const frame& f) {
  mac m{};
  std::copy_n(f.bytes.begin() + 6, 6, m.begin());
  return m;
}

}  // namespace

// readdressed() gives a packet other ends. What was wrong with its checksum stays wrong.
octets path::readdressed(const work& w, octets packet, const ends& to) const {
  const reading& r = w.r;
  const octets before = packet;
  const std::size_t size = r.version == 4 ? 4 : 16;
  const std::size_t source = r.version == 4 ? 12 : 8;
  const std::size_t l4 = r.l4 - r.l3;
  for (std::size_t i = 0; i < size; ++i) {
    packet[source + i] = to.source.bytes[i];
    packet[source + size + i] = to.destination.bytes[i];
  }
  if (r.version == 4) sum_ipv4_header(packet);
  if (r.what == reading::kind::fragment) return packet;  // its ports and its checksum are elsewhere
  set16(packet, l4, to.source_port);
  set16(packet, l4 + 2, to.destination_port);
  // The pseudo header has other addresses now.
  const std::size_t sum = l4 + (r.protocol == 6 ? 16 : 6);
  unsigned checksum = get16(packet, sum);
  if (r.protocol == 17 && checksum == 0) return packet;  // it has none
  const auto covered = [&](std::size_t from, std::size_t n) {
    for (std::size_t i = from; i < from + n; i += 2)
      checksum = corrected(checksum, get16(before, i), get16(packet, i));
  };
  covered(source, 2 * size);
  covered(l4, 4);
  if (r.protocol == 17 && checksum == 0) checksum = 0xffff;
  set16(packet, sum, checksum);
  return packet;
}

bool path::session_expired(const session& s) const {
  return now_s_ - s.seen > session_timeouts_.at(static_cast<std::size_t>(s.state));
}

void path::close_session(const ends& client) {
  const auto at = sessions_.find(client);
  replies_.erase(at->second.reply());
  sessions_.erase(at);
  count(counter_id::nat_sessions_closed);
}

bool path::forget_session(const ends& client, std::uint64_t now_s) {
  now_s_ = now_s;
  if (!session_expired(sessions_.at(client))) return false;
  close_session(client);
  return true;
}

// take_source(): the places of the pool are taken in turn, one port of every address and then
// the next port. Those that a session to this server has are passed over.
bool path::take_source(session& s) {
  const std::size_t family = s.server.size == 4 ? 0 : 1;
  const std::vector<address>& pool = pool_[family];
  if (pool.empty()) return false;
  for (unsigned attempts = 0; attempts < 64; ++attempts) {
    if (next_address_[family] >= pool.size()) {
      next_address_[family] = 0;
      next_port_ = (next_port_ + 1) % (65536 - 1024);
    }
    s.local = pool[next_address_[family]++];
    s.local_port = 1024 + next_port_;
    if (!replies_.contains(s.reply())) return true;
  }
  return false;
}

session* path::session_for(work& w, const named& to, const backend& b) {
  const reading& r = w.r;
  const bool tcp = r.protocol == 6;
  const bool full = tables_->services.at(b.service).mode == forward_mode::full_nat;
  const unsigned port = b.port != 0 ? b.port : r.destination_port;
  const ends client{r.protocol, r.source, r.source_port, r.destination, r.destination_port};
  if (const auto at = sessions_.find(client); at != sessions_.end()) {
    session& s = at->second;
    if (s.backend == to && s.server == b.at && s.server_port == port && s.full == full &&
        !session_expired(s)) {
      if (tcp)
        s.state = after(s.state, r.tcp_flags).value_or(s.state);
      else
        s.state = connection_state::udp;
      return &s;
    }
    close_session(client);
  }
  const auto first =
      tcp ? after(connection_state::free, r.tcp_flags) : std::optional{connection_state::udp_new};
  if (!first) return drop(w, counter_id::drop_nat_unmatched), nullptr;
  session s;
  s.client = client;
  s.server = b.at;
  s.server_port = port;
  s.full = full;
  s.backend = to;
  s.state = *first;
  if (full) {
    if (!take_source(s)) return drop(w, counter_id::drop_nat_no_port), nullptr;
  } else {
    s.local = r.source;
    s.local_port = r.source_port;
    // The client's port leads to the same place by another of the VIP's: is that one over?
    if (const auto other = replies_.find(s.reply()); other != replies_.end()) {
      const session& o = sessions_.at(other->second);
      const bool over = o.state == connection_state::closed || o.state == connection_state::syn ||
                        o.state == connection_state::learned ||
                        o.state == connection_state::udp_new ||
                        o.state == connection_state::closing;
      if (!over && !session_expired(o)) return drop(w, counter_id::drop_nat_no_port), nullptr;
      close_session(ends{other->second});
    }
  }
  count(counter_id::nat_sessions_opened);
  replies_[s.reply()] = client;
  return &(sessions_[client] = s);
}

void path::translate(work& w, const named& to, const backend& b) {
  const reading& r = w.r;
  if (b.at.size != r.source.size) return drop(w, counter_id::drop_bad_table);
  const unsigned mtu = b.mtu != 0 ? b.mtu : 65535;
  if (r.ip_length > mtu) return tell_too_big(w, mtu, 0);
  session* s = session_for(w, to, b);
  if (s == nullptr) return;
  s->seen = now_s_;
  s->in_port = w.in.in_port;
  s->client_mac = sender_of(w.in);
  const octets packet = readdressed(
      w, routed(w, b), {r.protocol, s->local, s->local_port, s->server, s->server_port});
  pass_on(w, packet, b.next_hop, b.out_port);
  sent(w, b);
}

bool path::answer(work& w) {
  const reading& r = w.r;
  const ends name{r.protocol, r.source, r.source_port, r.destination, r.destination_port};
  const auto at = replies_.find(name);
  if (at == replies_.end()) {
    const std::vector<address>& pool = pool_[r.version == 4 ? 0 : 1];
    if (std::find(pool.begin(), pool.end(), r.destination) == pool.end()) return false;
    drop(w, counter_id::drop_nat_unmatched);
    return true;
  }
  session& s = sessions_.at(at->second);
  w.out.backend = s.backend;
  if (const backend* b = row_of(s.backend); b != nullptr) w.out.service = b->service;
  if (s.in_port >= ports_.size()) return drop(w, counter_id::drop_no_next_hop), true;
  s.seen = now_s_;
  if (r.protocol == 6 && (r.tcp_flags & 4) != 0) s.state = connection_state::closed;
  octets packet(w.in.bytes.begin() + static_cast<std::ptrdiff_t>(r.l3),
                w.in.bytes.begin() + static_cast<std::ptrdiff_t>(r.l3 + r.ip_length));
  --packet[r.version == 4 ? 8 : 7];
  packet = readdressed(w, packet,
                       {r.protocol, s.client.destination, s.client.destination_port,
                        s.client.source, s.client.source_port});
  pass_on(w, packet, s.client_mac, s.in_port);
  w.out.what = verdict::forward;
  count(counter_id::nat_replies);
  return true;
}

}  // namespace sluice::reference
