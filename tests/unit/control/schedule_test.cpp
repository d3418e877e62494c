// SPDX-License-Identifier: Apache-2.0
// The schedulers' tables: shares, order, disruption, and that they are the same everywhere.
#include "controlplane/schedule/schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::schedule {
namespace {

using abi::scheduler;

constexpr scheduler built[] = {scheduler::maglev,
                               scheduler::ring_hash,
                               scheduler::partitioned_hash,
                               scheduler::round_robin,
                               scheduler::weighted_round_robin,
                               scheduler::weighted_random};

std::vector<member> members_of(const std::vector<std::uint32_t>& weights) {
  std::vector<member> out;
  for (unsigned i = 0; i < weights.size(); ++i)
    out.push_back({{test::v4(10, 0, i / 250, i % 250 + 1), 0}, weights[i]});
  return out;
}

std::vector<std::uint16_t> table_of(scheduler kind, const std::vector<member>& members,
                                    std::uint32_t configured = 65537, std::uint64_t seed = 42) {
  std::vector<std::uint16_t> table(table_size(kind, members, configured));
  const auto done = build(kind, members, seed, table);
  EXPECT_TRUE(done) << done.error();
  return table;
}

std::vector<std::uint32_t> counts_of(const std::vector<std::uint16_t>& table, std::size_t members) {
  std::vector<std::uint32_t> counts(members);
  for (const auto position : table) {
    EXPECT_LT(position, members);
    if (position < members) ++counts[position];
  }
  return counts;
}

// moved_of_others() is the share of slots that change their owner although neither the old nor
// the new one is `changed` (of those that the others had before).
double moved_of_others(const std::vector<std::uint16_t>& before, const std::vector<member>& old,
                       const std::vector<std::uint16_t>& after, const std::vector<member>& now,
                       const maglev::identity& changed) {
  EXPECT_EQ(before.size(), after.size());
  std::size_t moved = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const auto& was = old[before[i]].id;
    const auto& is = now[after[i]].id;
    if (was == changed || is == changed) continue;
    ++(was == is ? kept : moved);
  }
  return static_cast<double>(moved) / static_cast<double>(moved + kept);
}

TEST(schedule, hash_tables_move_little) {
  struct row {
    scheduler kind;
    double most;  // share of the others' slots that may move
  };
  for (const row r : {row{scheduler::ring_hash, 0.0}, row{scheduler::partitioned_hash, 0.03},
                      row{scheduler::maglev, 0.03}}) {
    const auto all = members_of(std::vector<std::uint32_t>(20, 100));
    const auto before = table_of(r.kind, all);
    for (const std::size_t gone : {std::size_t{0}, std::size_t{7}, std::size_t{19}}) {
      auto fewer = all;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(gone));
      const auto after = table_of(r.kind, fewer);
      EXPECT_LE(moved_of_others(before, all, after, fewer, all[gone].id), r.most)
          << static_cast<int>(r.kind) << " without " << gone;
      // And back: the same as if it had never been away.
      EXPECT_EQ(table_of(r.kind, all), before);
    }
    auto heavier = all;
    heavier[3].weight = 150;
    EXPECT_LE(moved_of_others(before, all, table_of(r.kind, heavier), heavier, all[3].id), r.most)
        << static_cast<int>(r.kind);
  }
}

TEST(schedule, hash_tables_follow_the_weights) {
  const std::vector<std::uint32_t> weights{100, 200, 300, 400, 50, 100, 100, 100, 100, 100};
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const auto members = members_of(weights);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const auto ring = counts_of(table_of(scheduler::ring_hash, members, 65537, seed), 10);
    const auto parts = counts_of(table_of(scheduler::partitioned_hash, members, 65537, seed), 10);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double fair = 65537.0 * weights[i] / total;
      // 160 points for a weight of 100: a standard deviation of about 1/sqrt(160), 8%.
      EXPECT_NEAR(ring[i], fair, fair * (weights[i] < 100 ? 0.5 : 0.35)) << i;
      EXPECT_LE(parts[i], std::ceil(fair * load_factor)) << i;
      EXPECT_GE(parts[i], fair * 0.5) << i;
    }
  }
}

// The bound holds whatever the weights, to the partition.
TEST(schedule, partitions_are_bounded) {
  std::mt19937 rng{3};
  for (int round = 0; round < 60; ++round) {
    std::vector<std::uint32_t> weights(1 + rng() % 40);
    for (auto& w : weights)
      w = static_cast<std::uint32_t>(1 + rng() % (rng() % 3 == 0 ? 65535 : 100));
    const std::uint32_t size = round % 2 == 0 ? 251 : 5003;
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    const auto counts =
        counts_of(table_of(scheduler::partitioned_hash, members_of(weights), size), weights.size());
    for (std::size_t i = 0; i < weights.size(); ++i)
      EXPECT_LE(counts[i], std::ceil(load_factor * size * weights[i] / total));
  }
}

// A slow look at the ring: who owns a place is who has the next point.
TEST(schedule, every_slot_of_the_ring_is_the_next_points) {
  const auto members = members_of({100, 1, 30});
  const auto whole = table_of(scheduler::ring_hash, members, 65537);
  // Alone, a member has the whole ring.
  EXPECT_EQ(counts_of(table_of(scheduler::ring_hash, members_of({1})), 1)[0], 65537u);
  // Without one, a slot of the others is where it was; its own go to who comes next, so the
  // three tables of two agree on each slot with the whole one, or it was the missing one's.
  for (std::size_t gone = 0; gone < 3; ++gone) {
    auto two = members;
    two.erase(two.begin() + static_cast<std::ptrdiff_t>(gone));
    const auto table = table_of(scheduler::ring_hash, two, 65537);
    for (std::size_t i = 0; i < table.size(); ++i) {
      if (whole[i] == gone) continue;
      ASSERT_EQ(two[table[i]].id, members[whole[i]].id);
    }
  }
}

TEST(schedule, turns_name_each_member_once) {
  for (const scheduler kind : {scheduler::round_robin, scheduler::random}) {
    const auto table = table_of(kind, members_of({5, 1, 900}));
    EXPECT_EQ(table, (std::vector<std::uint16_t>{0, 1, 2}));
  }
}

// nginx's algorithm, as it is told.
std::vector<std::uint16_t> smooth(const std::vector<std::uint32_t>& weights, std::size_t turns) {
  std::vector<std::int64_t> owns(weights.size());
  const std::int64_t sum = std::accumulate(weights.begin(), weights.end(), std::int64_t{0});
  std::vector<std::uint16_t> out;
  while (out.size() < turns) {
    std::size_t best = weights.size();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      owns[i] += weights[i];
      if (best == weights.size() || owns[i] > owns[best]) best = i;
    }
    owns[best] -= sum;
    out.push_back(static_cast<std::uint16_t>(best));
  }
  return out;
}

TEST(schedule, weighted_round_robin_is_the_smooth_sequence) {
  EXPECT_EQ(table_of(scheduler::weighted_round_robin, members_of({5, 1, 1})),
            (std::vector<std::uint16_t>{0, 0, 1, 0, 2, 0, 0}));
  EXPECT_EQ(table_of(scheduler::weighted_round_robin, members_of({500, 100, 100})).size(), 7u);
  EXPECT_EQ(table_of(scheduler::weighted_round_robin, members_of({100, 100})),
            (std::vector<std::uint16_t>{0, 1}));
  std::mt19937 rng{1};
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint32_t> weights(1 + rng() % 12);
    for (auto& w : weights) w = static_cast<std::uint32_t>(1 + rng() % (round % 3 == 0 ? 4 : 200));
    std::uint32_t divisor = 0;
    for (const auto w : weights) divisor = std::gcd(divisor, w);
    for (auto& w : weights) w /= divisor;
    const auto table = table_of(scheduler::weighted_round_robin, members_of(weights));
    ASSERT_EQ(table, smooth(weights, std::accumulate(weights.begin(), weights.end(), 0u)));
  }
}

TEST(schedule, cycles_that_are_too_long_are_approximated) {
  const std::vector<std::uint32_t> weights{65535, 65534, 32768, 1};
  const auto members = members_of(weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (const scheduler kind : {scheduler::weighted_round_robin, scheduler::weighted_random}) {
    const auto table = table_of(kind, members, 65537);
    ASSERT_EQ(table.size(), 65537u);
    const auto counts = counts_of(table, members.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      EXPECT_GE(counts[i], 1u);
      EXPECT_NEAR(counts[i], 65537 * weights[i] / total, 2.0);
    }
  }
  EXPECT_EQ(table_of(scheduler::weighted_round_robin, members, 16777213).size(), longest_cycle);
  // As many members as slots: each once.
  const auto many = members_of(std::vector<std::uint32_t>(251, 3));
  EXPECT_EQ(table_of(scheduler::weighted_random, many, 251).size(), 251u);
  std::vector<std::uint32_t> uneven(251, 3);
  uneven[0] = 1000;
  const auto counts = counts_of(table_of(scheduler::weighted_random, members_of(uneven), 251), 251);
  EXPECT_EQ(counts, std::vector<std::uint32_t>(251, 1));
}

TEST(schedule, weighted_random_is_exact) {
  const auto table = table_of(scheduler::weighted_random, members_of({300, 100, 200}));
  EXPECT_EQ(table, (std::vector<std::uint16_t>{0, 0, 0, 1, 2, 2}));
}

TEST(schedule, kinds_that_share_a_table) {
  EXPECT_EQ(table_kind(scheduler::random), scheduler::round_robin);
  for (const auto kind : {scheduler::source_hash, scheduler::least_connections,
                          scheduler::weighted_least_connections, scheduler::maglev})
    EXPECT_EQ(table_kind(kind), scheduler::maglev);
}

TEST(schedule, refusals) {
  std::vector<std::uint16_t> table(251);
  const auto members = members_of({100, 100});
  for (const scheduler kind : built) {
    EXPECT_FALSE(build(kind, {}, 1, table));
    EXPECT_FALSE(build(kind, members_of({100, 0}), 1, table));
    EXPECT_FALSE(build(kind, std::vector{members[1], members[0]}, 1, table));
    EXPECT_FALSE(build(kind, std::vector{members[0], members[0]}, 1, table));
  }
  EXPECT_FALSE(build(scheduler::round_robin, members, 1, table));
  EXPECT_FALSE(build(scheduler::weighted_random, members, 1, table));
}

// The digests of tables that other nodes have built: they may change with the major version
// only, or a fleet in the middle of an upgrade would disagree.
TEST(schedule, golden_tables) {
  const auto members = members_of({100, 50, 200, 100, 1});
  std::map<scheduler, std::uint64_t> digests;
  for (const scheduler kind : built)
    digests[kind] = maglev::digest(members, table_of(kind, members, 4099, 7));
  const std::map<scheduler, std::uint64_t> golden{
      {scheduler::maglev, 2785262716044889084u},
      {scheduler::ring_hash, 15576211234135654581u},
      {scheduler::partitioned_hash, 9384674840365889452u},
      {scheduler::round_robin, 10290423104581145048u},
      {scheduler::weighted_round_robin, 3084928664838627892u},
      {scheduler::weighted_random, 15837252954202585404u}};
  EXPECT_EQ(digests, golden);
}

}  // namespace
}  // namespace sluice::schedule
