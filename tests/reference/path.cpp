// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/path.hpp"

namespace sluice::reference {

using abi::connection_state;
using abi::counter_id;

namespace {

constexpr unsigned fin_bit = 1, syn_bit = 2, rst_bit = 4, ack_bit = 16;

bool opens(unsigned flags) {
  return (flags & (syn_bit | fin_bit | rst_bit | ack_bit)) == syn_bit;
}

// begins_anew(): a SYN where the old connection has ended.
bool begins_anew(connection_state s, unsigned flags) {
  return opens(flags) && (s == connection_state::closed || s == connection_state::closing);
}

}  // namespace

std::optional<connection_state> after(connection_state s, unsigned flags) {
  using enum connection_state;
  const bool is_syn = opens(flags);
  const bool is_rst = (flags & rst_bit) != 0 && (flags & (syn_bit | fin_bit)) == 0;
  const bool is_ack = (flags & ack_bit) != 0 && (flags & (syn_bit | rst_bit)) == 0;
  const bool is_fin = is_ack && (flags & fin_bit) != 0;
  if (!is_syn && !is_rst && !is_ack) return {};  // no client sends that
  switch (s) {
    case free:  // a FIN or RST ends something that is not known: not worth an entry
      if (is_syn) return syn;
      if (is_ack && !is_fin) return learned;
      return {};
    case closed:  // anything but a SYN: the server did not believe the RST
      if (is_syn) return syn;
      if (is_rst) return {};
      return is_fin ? closing : learned;
    case syn:
      if (is_syn) return syn;
      if (is_rst) return closed;
      return is_fin ? closing : established;
    case learned:
    case established:  // a SYN on a live connection is old or forged
      if (is_syn) return {};
      if (is_rst) return closed;
      return is_fin ? closing : established;
    case closing:
      if (is_syn) return syn;
      if (is_rst) return closed;
      return closing;
    default:
      return {};
  }
}

void path::use(const description& tables) {
  tables_ = &tables;
  if (!tables.translates()) return;
  session_timeouts_ = tables.timeouts;
  for (std::vector<address>& of_family : pool_) of_family.clear();
  for (const address& a : tables.pool) pool_[a.size == 4 ? 0 : 1].push_back(a);
}

bool path::unknown(const frame& f) const {
  const reading r = read(f);
  if (tables_->empty) return false;
  const bool to_vip = tables_->vip_of(r.destination, 6) || tables_->vip_of(r.destination, 17);
  // Fragments of a translated flow, or that might be.
  const bool in_pieces =
      r.what == reading::kind::first_fragment || r.what == reading::kind::fragment;
  if (in_pieces && (to_vip ? translates_at(r.destination) : tables_->translates())) return true;
  if (r.what == reading::kind::other && r.protocol == (r.version == 4 ? 1u : 58u)) {
    if (std::min(f.contiguous, r.l3 + r.ip_length) < r.l4 + 8) return false;
    // Errors: about a connection, a translation, or one of our tunnels.
    const unsigned type = f.bytes[r.l4];
    return r.version == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
  }
  return false;
}

std::vector<outcome> path::process(const std::vector<frame>& burst, std::uint64_t now_ns,
                                   const std::vector<std::optional<named>>& said) {
  now_ns_ = now_ns;
  now_s_ = now_ns / 1'000'000'000;
  std::vector<outcome> out(burst.size());
  std::vector<work> known_ones[2];
  std::vector<work> newcomers[2];
  std::vector<work> firsts;
  std::vector<work> others;
  for (std::size_t i = 0; i < burst.size(); ++i) {
    out[i].out = burst[i];
    work w{burst[i], read(burst[i]), out[i], said[i]};
    if (!admit(w)) continue;
    if (w.r.what == reading::kind::fragment) {
      others.push_back(w);
      continue;
    }
    if (w.r.what == reading::kind::first_fragment) firsts.push_back(w);
    w.key = {tables_->vips[w.vip].id, w.r.source, w.r.source_port, w.r.destination_port};
    const std::size_t family = w.r.version == 4 ? 0 : 1;
    (connections_.contains(w.key) ? known_ones : newcomers)[family].push_back(w);
  }
  for (const std::size_t family : {0u, 1u}) {
    for (work& w : known_ones[family]) known(w);
    for (work& w : newcomers[family]) newcomer(w);
  }
  settle_fragments(firsts, others);
  return out;
}

void path::drop(work& w, counter_id why) {
  w.out.what = verdict::drop;
  w.out.reason = why;
  count(why);
  if (w.out.service) ++services_.at(*w.out.service).dropped;
}

void path::leave(work& w, kernel_reason why, counter_id otherwise) {
  if (w.in.in_port >= ports_.size() || !ports_[w.in.in_port].has_kernel) return drop(w, otherwise);
  w.out.what = verdict::kernel;
  w.out.why = why;
  count(counter_id::to_kernel);
}

bool path::admit(work& w) {
  const reading& r = w.r;
  const auto stop = [] { return false; };
  if (r.what == reading::kind::not_ip)
    return leave(w, kernel_reason::not_ip, counter_id::drop_not_for_us), stop();
  if (r.what == reading::kind::group)
    return leave(w, kernel_reason::group_frame, counter_id::drop_not_for_us), stop();
  if (r.what == reading::kind::unreadable) return drop(w, r.fault), stop();
  if (tables_->empty) return drop(w, counter_id::drop_no_tables), stop();
  const auto tcp_vip = tables_->vip_of(r.destination, 6);
  const auto udp_vip = tables_->vip_of(r.destination, 17);
  if (!tcp_vip && !udp_vip && r.what == reading::kind::flow && tables_->translates() && answer(w))
    return false;
  if (!tcp_vip && !udp_vip)
    return leave(w, kernel_reason::not_for_a_vip, counter_id::drop_not_for_us), stop();
  if (r.what == reading::kind::fault) return drop(w, r.fault), stop();
  if (r.what == reading::kind::flow || r.what == reading::kind::first_fragment) {
    const auto vip = r.protocol == 6 ? tcp_vip : udp_vip;
    if (!vip)
      return leave(w, kernel_reason::no_service_port, counter_id::drop_no_service_port), stop();
    w.vip = *vip;
    return true;
  }
  const bool is_icmp = r.protocol == (r.version == 4 ? 1u : 58u);
  if (r.what == reading::kind::other && is_icmp) return icmp(w), stop();
  // IPv6 names what the first fragment begins with.
  const bool transport = r.protocol == 6 || r.protocol == 17;
  const bool may_follow = transport || (r.version == 6 && (r.protocol == 0 || r.protocol == 43 ||
                                                           r.protocol == 51 || r.protocol == 60));
  if (r.what == reading::kind::fragment && may_follow) {
    if (transport && !(r.protocol == 6 ? tcp_vip : udp_vip))
      return leave(w, kernel_reason::no_service_port, counter_id::drop_no_service_port), stop();
    return true;
  }
  leave(w, is_icmp ? kernel_reason::icmp : kernel_reason::other_protocol,
        counter_id::drop_unsupported_protocol);
  return false;
}

void path::known(work& w) {
  count(counter_id::connection_hits);
  connection& c = connections_.at(w.key);
  const bool tcp = w.r.protocol == 6;
  const unsigned flags = tcp ? w.r.tcp_flags : 0;
  const auto next = tcp ? after(c.state, flags) : std::optional{connection_state::udp};
  const bool anew = tcp && opens(flags) && (begins_anew(c.state, flags) || expired(c));
  if (may_go_on(c, w.vip) && !anew) {
    if (next) c.state = *next, c.seen = now_s_;
    return send(w, c.backend);
  }
  const auto service = tables_->service_of(w.vip, w.r.destination_port);
  if (!service) return leave(w, kernel_reason::no_service_port, counter_id::drop_no_service_port);
  const auto to = scheduled(w, *service);
  if (!to) return;
  closed(c.backend);
  opened(*to, anew);
  if (anew) {
    c.state = connection_state::syn;
    count(counter_id::connections_opened);
    count(counter_id::connections_closed);
  } else {
    if (next) c.state = *next;
    count(counter_id::connections_moved);
  }
  c.backend = *to;
  c.seen = now_s_;
  send(w, *to);
}

void path::newcomer(work& w) {
  const auto service = tables_->service_of(w.vip, w.r.destination_port);
  if (!service) return leave(w, kernel_reason::no_service_port, counter_id::drop_no_service_port);
  auto to = by_hash(w, *service);
  if (!to) return;
  const auto first = w.r.protocol == 6 ? after(connection_state::free, w.r.tcp_flags)
                                       : std::optional{connection_state::udp_new};
  if (!first) return send(w, *to);
  if (connections_.contains(w.key)) {  // an earlier packet of this burst has begun it
    w.out.service.reset();
    return known(w);
  }
  // What began before we saw it goes by the hash: so did its packets that found no entry.
  if (w.r.protocol != 6 || opens(w.r.tcp_flags)) to = scheduled(w, *service);
  if (!to) return;
  connections_[w.key] = {*to, *first, now_s_};
  count(counter_id::connections_opened);
  opened(*to, true);
  send(w, *to);
}

std::uint64_t path::hash_for(const work& w, const service& s) const {
  return s.kind == abi::scheduler::source_hash ? hash_of_source(tables_->hash_seed, w.r.source)
                                               : hash_of_flow(tables_->hash_seed, w.r);
}

std::optional<named> path::member(unsigned service, std::size_t place) const {
  const unsigned row = tables_->services[service].members.at(place);
  const backend& b = tables_->backends.at(row);
  if (!b.in_use || b.service != service) return {};
  return named{row, b.incarnation};
}

std::optional<named> path::by_hash(work& w, unsigned service) {
  const reference::service& s = tables_->services[service];
  w.out.service = service;
  if (s.members.empty()) {
    drop(w, counter_id::drop_no_backend);
    return {};
  }
  // The upper half of the hash as a fraction of the table, or of the members.
  const std::uint64_t hash = hash_for(w, s) >> 32;
  const std::size_t place =
      s.table.empty() ? hash * s.members.size() >> 32 : s.table.at(hash * s.table.size() >> 32);
  const auto to = member(service, place);
  if (!to) drop(w, counter_id::drop_bad_table);
  return to;
}

const backend* path::row_of(const named& n) const {
  if (n.row >= tables_->backends.size()) return nullptr;
  const backend& b = tables_->backends[n.row];
  return b.in_use && b.incarnation == n.incarnation ? &b : nullptr;
}

bool path::may_go_on(const connection& c, std::size_t vip) const {
  const backend* b = row_of(c.backend);
  if (b == nullptr || !b->keeps_connections) return false;
  const service& s = tables_->services.at(b->service);
  return s.in_use && s.vip == vip;
}

bool path::expired(const connection& c) const {
  return now_s_ - c.seen > tables_->timeouts.at(static_cast<std::size_t>(c.state));
}

bool path::forget(const connection_key& key, std::uint64_t now_s) {
  now_s_ = now_s;
  const auto at = connections_.find(key);
  if (at == connections_.end()) return false;
  const bool old = expired(at->second);
  if (!old && at->second.state != connection_state::closed) return false;
  count(counter_id::connections_closed);
  count(old ? counter_id::connections_expired : counter_id::connections_evicted);
  closed(at->second.backend);
  connections_.erase(at);
  return true;
}

void path::opened(const named& n, bool anew) {
  const backend* b = row_of(n);
  if (b == nullptr) return;
  ++backends_.at(n.row).opened;
  if (anew) ++services_.at(b->service).opened;
}

// closed() leaves the row of a backend alone that another one has by now. Without tables nobody
// knows that.
void path::closed(const named& n) {
  if (tables_->empty || row_of(n) != nullptr) ++backends_.at(n.row).closed;
}

}  // namespace sluice::reference
