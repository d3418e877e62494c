// SPDX-License-Identifier: Apache-2.0
// Fragments in the reference model: those without ports go where the first one of their datagram
// went, or wait for it.
#include <algorithm>

#include "tests/reference/path.hpp"

namespace sluice::reference {

using abi::counter_id;
using abi::forward_mode;

namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::size_t most_of_one = 64;

}  // namespace

datagram path::datagram_of(const reading& r) {
  return {r.source, r.destination, r.id, r.version == 4 ? r.protocol : 0};
}

bool path::translates_at(const address& at) const {
  return std::any_of(tables_->services.begin(), tables_->services.end(), [&](const service& s) {
    return (s.mode == forward_mode::nat || s.mode == forward_mode::full_nat) &&
           tables_->vips[s.vip].at == at;
  });
}

const path::first_one* path::first_of(const datagram& d) const {
  const auto at = firsts_.find(d);
  return at != firsts_.end() && now_ns_ - at->second.entered_ns < 3 * second ? &at->second
                                                                             : nullptr;
}

void path::settle_fragments(std::vector<work>& firsts, std::vector<work>& others) {
  std::vector<std::pair<datagram, guest>> leaving;
  for (const work& w : firsts) {
    const datagram d = datagram_of(w.r);
    firsts_[d] = {w.out.what, w.out.backend, now_ns_};
    for (guest& g : waiting_[d]) leaving.emplace_back(d, std::move(g));
    waiting_.erase(d);
  }
  waiting_count_ -= leaving.size();
  // The places of those that leave are free in the next call only.
  const std::size_t leaving_count = released_.size() + leaving.size();
  for (work& w : others) {
    const datagram d = datagram_of(w.r);
    if (const first_one* first = first_of(d); first != nullptr) {
      follow(w, *first);
      continue;
    }
    std::vector<guest>& same = waiting_[d];
    if (same.size() == most_of_one || waiting_count_ + leaving_count >= waiting_places) {
      drop(w, counter_id::drop_fragment_room);
      continue;
    }
    w.out.what = verdict::held;
    w.out.waits = ++last_number_;
    same.push_back({w.in, now_ns_, w.out.waits});
    ++waiting_count_;
    count(counter_id::fragments_waited);
  }
  for (const auto& [d, g] : leaving) {
    outcome& out = released_[g.number];
    out.out = g.in;
    work w{g.in, read(g.in), out};
    follow(w, *first_of(d));
  }
}

void path::follow(work& w, const first_one& first) {
  const bool sent = first.what == verdict::forward || first.what == verdict::reply;
  if (first.what == verdict::kernel)
    return leave(w, kernel_reason::no_service_port, counter_id::drop_no_service_port);
  if (!sent || tables_->empty || row_of(*first.backend) == nullptr)
    return drop(w, counter_id::drop_fragment);
  send(w, *first.backend);
  if (w.out.what == verdict::forward) count(counter_id::fragments_followed);
}

void path::expire_waiting(std::uint64_t now_ns) {
  now_ns_ = now_ns;
  now_s_ = now_ns / second;
  for (auto& [d, guests] : waiting_) {
    const auto late = [&](const guest& g) { return now_ns - g.since_ns >= second; };
    for (const guest& g : guests) {
      if (!late(g)) continue;
      outcome& out = released_[g.number];
      out.out = g.in;
      work w{g.in, read(g.in), out};
      --waiting_count_;
      const bool ours =
          tables_->empty || tables_->vip_of(d.destination, 6) || tables_->vip_of(d.destination, 17);
      if (ours)
        drop(w, counter_id::drop_fragment);
      else
        leave(w, kernel_reason::not_for_a_vip, counter_id::drop_fragment);
    }
    std::erase_if(guests, late);
  }
  std::erase_if(waiting_, [](const auto& w) { return w.second.empty(); });
  std::erase_if(firsts_, [&](const auto& f) { return now_ns - f.second.entered_ns >= 3 * second; });
}

}  // namespace sluice::reference
