// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "controlplane/schedule/proportion.hpp"

namespace sluice::schedule {
namespace {

std::uint32_t divisor_of(std::span<const member> members) noexcept {
  std::uint32_t divisor = 0;
  for (const member& m : members) divisor = std::gcd(divisor, m.weight);
  return std::max(divisor, 1u);
}

}  // namespace

std::uint64_t cycle_of(std::span<const member> members) noexcept {
  std::uint64_t sum = 0;
  for (const member& m : members) sum += m.weight;
  return sum / divisor_of(members);
}

std::vector<std::uint32_t> slots_of(std::span<const member> members, std::uint32_t size) {
  std::vector<std::uint32_t> slots(members.size());
  if (cycle_of(members) == size) {
    const std::uint32_t divisor = divisor_of(members);
    for (std::size_t i = 0; i < members.size(); ++i) slots[i] = members[i].weight / divisor;
    return slots;
  }
  slots = maglev::quotas(members, size - static_cast<std::uint32_t>(members.size()));
  for (std::uint32_t& n : slots) ++n;
  return slots;
}

void build_proportional(std::span<const member> members, std::span<std::uint16_t> table) {
  const auto slots = slots_of(members, static_cast<std::uint32_t>(table.size()));
  auto at = table.begin();
  for (std::size_t i = 0; i < slots.size(); ++i)
    at = std::fill_n(at, slots[i], static_cast<std::uint16_t>(i));
}

}  // namespace sluice::schedule
