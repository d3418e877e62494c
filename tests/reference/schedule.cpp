// SPDX-License-Identifier: Apache-2.0
// The schedulers of the reference model: which backend a new connection gets.
#include <algorithm>

#include "tests/reference/path.hpp"

namespace sluice::reference {

using abi::counter_id;
using abi::scheduler;

std::optional<named> path::scheduled(work& w, unsigned service) {
  const reference::service& s = tables_->services[service];
  w.out.service = service;
  if (s.members.empty()) {
    drop(w, counter_id::drop_no_backend);
    return {};
  }
  std::optional<named> to;
  switch (s.kind) {
    case scheduler::round_robin:
    case scheduler::weighted_round_robin:
      to = in_turn(w, service);
      break;
    case scheduler::random:
    case scheduler::weighted_random:
      to = at_random(w, service);
      break;
    case scheduler::least_connections:
    case scheduler::weighted_least_connections:
      to = least(w, service);
      break;
    default:
      return by_hash(w, service);
  }
  if (!to) drop(w, counter_id::drop_bad_table);
  return to;
}

// in_turn(): slot after slot. Of the turns that it may be, those remain that agree with what the
// path has done.
std::optional<named> path::in_turn(const work& w, unsigned service) {
  const std::vector<std::uint16_t>& table = tables_->services[service].table;
  std::vector<std::size_t>& turns = turns_[service];
  if (turns.empty())
    for (std::size_t slot = 0; slot < table.size(); ++slot) turns.push_back(slot);
  for (std::size_t& turn : turns)
    if (turn >= table.size()) turn = 0;  // the table is another one
  std::vector<std::size_t> right;
  std::copy_if(turns.begin(), turns.end(), std::back_inserter(right),
               [&](std::size_t turn) { return member(service, table[turn]) == w.said; });
  const auto to = member(service, table[(right.empty() ? turns : right).front()]);
  turns = right;
  for (std::size_t& turn : turns) ++turn;
  return to;
}

std::optional<named> path::at_random(const work& w, unsigned service) const {
  const std::vector<std::uint16_t>& table = tables_->services[service].table;
  for (const std::uint16_t place : table)
    if (member(service, place) == w.said) return w.said;
  return member(service, table.front());
}

// least(): the fewest connections, counting the one that comes, per weight; among equals the
// first one from the place that the hash names.
std::optional<named> path::least(const work& w, unsigned service) const {
  const reference::service& s = tables_->services[service];
  const std::size_t count = s.members.size();
  const std::size_t start = (hash_for(w, s) >> 32) * count >> 32;
  std::optional<std::size_t> best;
  double best_load = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t place = (start + i) % count;
    const unsigned row = s.members[place];
    const backend_counts& c = backends_.at(row);
    const auto now = static_cast<std::int64_t>(c.opened - c.closed);
    double load = static_cast<double>(std::max<std::int64_t>(now, 0) + 1);
    const backend& b = tables_->backends.at(row);
    if (s.kind == scheduler::weighted_least_connections && b.in_use && b.weight > 1)
      load /= b.weight;
    if (best && load >= best_load) continue;
    best = place;
    best_load = load;
  }
  return member(service, *best);
}

}  // namespace sluice::reference
