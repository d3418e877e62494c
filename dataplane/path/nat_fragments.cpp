// SPDX-License-Identifier: Apache-2.0
// Fragments of translated datagrams, both ways. The first one has the ports: it finds the
// session, and its checksum, which covers the whole datagram, is corrected incrementally. The
// others get the session's addresses; they have no checksum of their own. Who waits for whom:
// fragments.cpp.
#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/path/packet_path.hpp"

namespace sluice {

using abi::counter_id;

// may_be_nat_backend() tells whether replies may come from an address: of a backend of nat, or
// rarely of somebody else, whose fragments then wait in vain. (Replies of full-nat are known by
// their destination.) The rows are gone through once per generation, and only when fragments
// come.
bool packet_path::may_be_nat_backend(const ip_address& a) noexcept {
  const auto place = [](const ip_address& of) {
    return sluice_mix64(of.high() ^ sluice_mix64(of.low())) %
           (64 * std::tuple_size_v<decltype(nat_backends_)>);
  };
  if (!nat_backends_known_) {
    nat_backends_known_ = true;
    nat_backends_.fill(0);
    for (std::uint32_t n = 0; n < view_.header().backend_count; ++n) {
      const abi::backend_row* row = view_.backend_at(n);
      if (row == nullptr || (row->flags & abi::backend_in_use) == 0 ||
          row->mode != abi::forward_mode::nat)
        continue;
      const ip_address address = row->address;
      nat_backends_[place(address) / 64] |= std::uint64_t{1} << place(address) % 64;
    }
  }
  return (nat_backends_[place(a) / 64] >> place(a) % 64 & 1) != 0;
}

// fragment_of_reply() takes a fragment that is not to a VIP. False: it is none of a reply.
bool packet_path::fragment_of_reply(std::size_t i) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const wire::flow_ends ends = wire::ends_of(p.data, m);
  if (!nat_->in_pool(ends.destination) && !may_be_nat_backend(ends.source)) return false;
  if (!note_fragment(i)) return true;
  return m.kind == wire::parse_kind::fragment || answer(i);
}

// first_fragment_of_other() hands a client's first fragment to the worker that has its flow's
// session, if another one has: where flows have no owners, a NIC spreads fragments by their
// addresses and whole packets by their ports as well. The other fragments follow it.
bool packet_path::first_fragment_of_other(std::size_t i) noexcept {
  if (all_nat_.size() < 2 || accepts_all_) return false;
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const wire::flow_ends ends = wire::ends_of(p.data, m);
  return nat_->find_forward(ends, m.protocol) == nullptr &&
         hand_over_to_holder(p, ends, m.protocol);
}

// note_session() has the other fragments of a datagram find what the first one did.
void packet_path::note_session(std::size_t i, const nat_session& s) noexcept {
  for (unsigned k = 0; k < note_count_; ++k)
    if (notes_[k].first && notes_[k].at == i) notes_[k].session = nat_->number_of(s);
}

// follow_translated() sends a later fragment on as its first one was. The session may be
// another's by now: then backend and addresses tell.
void packet_path::follow_translated(std::size_t i, const fragment_table::entry& known) noexcept {
  packet& p = burst_[i];
  const wire::parsed& m = parsed_[i];
  const nat_session* s = nat_active_ ? nat_->at(known.session) : nullptr;
  if (s != nullptr && s->backend != known.backend) s = nullptr;
  const wire::flow_ends ends = wire::ends_of(p.data, m);
  const bool to_backend = s != nullptr && ends.source == s->client && ends.destination == s->vip;
  const bool to_client = s != nullptr && ends.source == s->server && ends.destination == s->local;
  if (!to_backend && !to_client) return drop(p, counter_id::drop_fragment);
  p.backend = s->backend;
  const abi::backend_row* row = view_.backend(s->backend);
  const abi::service_row* service = row != nullptr ? view_.service(row->service) : nullptr;
  if (service != nullptr) p.service = service->self;
  if (wire::hop_limit_of(p, m) <= 1) return drop(p, counter_id::drop_ttl_expired);
  if (to_client) {
    if (s->in_port >= port_count_) return drop(p, counter_id::drop_no_next_hop);
    pass_to_client(p, m, *s);
    return count(counter_id::fragments_followed);
  }
  if (row == nullptr || service == nullptr) return drop(p, counter_id::drop_fragment);
  if (const abi::service_options* o = abi::options_of(view_, *service);
      o != nullptr && !within_packet_rate(*service, *o))
    return drop(p, counter_id::drop_packet_rate);
  const hop_words to = hop_words::of(*row);
  if (!to.has(abi::backend_has_next_hop) || to.out_port() >= port_count_)
    return drop(p, counter_id::drop_no_next_hop);
  if (m.ip_length > to.mtu()) return too_big(i, to.mtu(), 0);
  wire::readdress(p.data, m, s->to_server());
  wire::route(p.data, m);
  wire::write_macs(p.data, to.next_hop(), port_macs_[to.out_port()]);
  count_sent(i, s->backend, to.service(), to.out_port());
  count(counter_id::fragments_followed);
}

}  // namespace sluice
