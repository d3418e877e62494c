// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "controlplane/schedule/proportion.hpp"

namespace sluice::schedule {
namespace {

// weight_class: members of one weight. All of them have gained the same; who has been chosen
// least often has most, and of those the first. So a class chooses its own in turn.
struct weight_class {
  std::int64_t weight;
  std::uint32_t first, last;  // in the order by weight
  std::uint32_t next;         // whose turn it is
  std::int64_t owns;          // what that one has now
};

}  // namespace

void build_smooth(std::span<const member> members, std::span<std::uint16_t> table) {
  const auto weights = slots_of(members, static_cast<std::uint32_t>(table.size()));
  const auto sum = static_cast<std::int64_t>(table.size());
  std::vector<std::uint32_t> order(members.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return weights[a] > weights[b]; });
  std::vector<weight_class> classes;
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    const auto weight = static_cast<std::int64_t>(weights[order[i]]);
    if (classes.empty() || classes.back().weight != weight) classes.push_back({weight, i, i, i, 0});
    classes.back().last = i + 1;
  }
  for (std::uint16_t& slot : table) {
    weight_class* best = nullptr;
    for (weight_class& c : classes) {
      c.owns += c.weight;
      if (best == nullptr || c.owns > best->owns ||
          (c.owns == best->owns && order[c.next] < order[best->next]))
        best = &c;
    }
    slot = static_cast<std::uint16_t>(order[best->next]);
    // The next of the class has paid as often as this one had, until the round is over.
    if (++best->next == best->last) {
      best->next = best->first;
      best->owns -= sum;
    }
  }
}

}  // namespace sluice::schedule
