// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schedule/schedule.hpp"

#include <algorithm>

#include "controlplane/schedule/proportion.hpp"

namespace sluice::schedule {
namespace {

using abi::scheduler;

tl::expected<void, std::string> check(scheduler kind, std::span<const member> members,
                                      std::size_t size) {
  const auto wrong = [](std::string text) { return tl::unexpected{std::move(text)}; };
  if (members.empty()) return wrong("a table needs a member");
  if (members.size() > maglev::max_members)
    return wrong(std::to_string(members.size()) + " members do not fit a table");
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (members[i].weight == 0 || members[i].weight > maglev::max_weight)
      return wrong("weight " + std::to_string(members[i].weight) + " is not in 1 to " +
                   std::to_string(maglev::max_weight));
    if (i > 0 && members[i - 1].id >= members[i].id)
      return wrong("members are not sorted by identity, each once");
  }
  const auto n = static_cast<std::uint32_t>(size);
  if (size > maglev::max_size || table_size(kind, members, n) != n)
    return wrong(std::to_string(size) + " is no size for a table of these members");
  return {};
}

}  // namespace

scheduler table_kind(scheduler kind) noexcept {
  switch (kind) {
    case scheduler::ring_hash:
    case scheduler::partitioned_hash:
    case scheduler::round_robin:
    case scheduler::weighted_round_robin:
    case scheduler::weighted_random:
      return kind;
    case scheduler::random:
      return scheduler::round_robin;
    case scheduler::none:
    case scheduler::maglev:
    case scheduler::source_hash:
    case scheduler::least_connections:
    case scheduler::weighted_least_connections:
    case scheduler::count_:
      break;
  }
  return scheduler::maglev;
}

std::uint32_t largest_table(scheduler kind, std::size_t members,
                            std::uint32_t configured) noexcept {
  const auto each = static_cast<std::uint32_t>(members);
  switch (table_kind(kind)) {
    case scheduler::round_robin:
      return each;
    case scheduler::weighted_round_robin:
      return std::max(std::min(configured, longest_cycle), each);
    case scheduler::weighted_random:
      return std::max(configured, each);
    default:
      return configured;
  }
}

std::uint32_t table_size(scheduler kind, std::span<const member> members,
                         std::uint32_t configured) {
  if (members.empty()) return 0;
  const std::uint32_t largest = largest_table(kind, members.size(), configured);
  switch (table_kind(kind)) {
    case scheduler::weighted_round_robin:
    case scheduler::weighted_random:
      return static_cast<std::uint32_t>(std::min<std::uint64_t>(cycle_of(members), largest));
    default:
      return largest;
  }
}

tl::expected<void, std::string> build(scheduler kind, std::span<const member> members,
                                      std::uint64_t seed, std::span<std::uint16_t> table) {
  const scheduler builder = table_kind(kind);
  if (builder == scheduler::maglev) return maglev::build(members, seed, table);
  if (auto fine = check(builder, members, table.size()); !fine) return fine;
  switch (builder) {
    case scheduler::ring_hash:
      build_ring(members, seed, table);
      break;
    case scheduler::partitioned_hash:
      build_partitions(members, seed, table);
      break;
    case scheduler::round_robin:
      build_turns(members, table);
      break;
    case scheduler::weighted_round_robin:
      build_smooth(members, table);
      break;
    default:
      build_proportional(members, table);
      break;
  }
  return {};
}

}  // namespace sluice::schedule
