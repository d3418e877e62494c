// SPDX-License-Identifier: Apache-2.0
// Maglev: golden vectors, balance, determinism, disruption (measured and printed), speed.
#include "controlplane/maglev/maglev.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <set>

#include "controlplane/maglev/last_slots.hpp"
#include "dataplane/abi/flow_hash.h"

namespace sluice::maglev {
namespace {

constexpr std::uint32_t large = 65537;

identity v4(unsigned i) {
  return {ip_address::v4({10, static_cast<std::uint8_t>(i >> 16), static_cast<std::uint8_t>(i >> 8),
                          static_cast<std::uint8_t>(i)}),
          0};
}

std::vector<member> equal_members(unsigned n, std::uint32_t weight = 100) {
  std::vector<member> m;
  for (unsigned i = 0; i < n; ++i) m.push_back({v4(i + 1), weight});
  return m;
}

std::vector<std::uint16_t> table_of(const std::vector<member>& m, std::uint32_t size = large,
                                    std::uint64_t seed = 42) {
  std::vector<std::uint16_t> table(size);
  const auto done = build(m, seed, table);
  EXPECT_TRUE(done) << (done ? "" : done.error());
  return table;
}

std::vector<std::uint32_t> counts_of(const std::vector<std::uint16_t>& t, std::size_t members) {
  std::vector<std::uint32_t> counts(members);
  for (const auto p : t) ++counts.at(p);
  return counts;
}

// moved() is the share of the slots of members that are in both (and not `except`) whose
// owner differs.
double moved(const std::vector<member>& a, const std::vector<member>& b, std::uint32_t size = large,
             const identity* except = nullptr) {
  const auto before = table_of(a, size);
  const auto after = table_of(b, size);
  std::set<identity> in_b;
  for (const auto& m : b) in_b.insert(m.id);
  std::size_t others = 0;
  std::size_t changed = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    const identity& owner = a[before[i]].id;
    if (!in_b.contains(owner) || (except != nullptr && owner == *except)) continue;
    ++others;
    if (b[after[i]].id != owner) ++changed;
  }
  return static_cast<double>(changed) / static_cast<double>(others);
}

TEST(maglev, golden_small_tables) {
  // Exact content: any change of these numbers moves every connection of every user.
  EXPECT_EQ(table_of(equal_members(3), 13, 0),
            (std::vector<std::uint16_t>{2, 0, 0, 1, 2, 2, 0, 1, 0, 0, 1, 1, 2}));
  const std::vector<member> weighted{{v4(1), 2}, {v4(2), 1}, {v4(3), 1}};
  EXPECT_EQ(table_of(weighted, 17, 42),
            (std::vector<std::uint16_t>{0, 2, 0, 0, 1, 0, 1, 2, 0, 0, 0, 0, 2, 1, 0, 1, 2}));
  const std::vector<member> mixed{
      {{ip_address::v4({192, 0, 2, 1}), 0}, 1},
      {{ip_address::v6({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}), 0}, 3}};
  EXPECT_EQ(table_of(mixed, 11, 7), (std::vector<std::uint16_t>{1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1}));
}

TEST(maglev, golden_digests) {
  const auto digest_of = [](const std::vector<member>& m, std::uint32_t size, std::uint64_t seed) {
    return digest(m, table_of(m, size, seed));
  };
  EXPECT_EQ(identity_hash(v4(1)), 0x2230fc745ecf0ceull);
  EXPECT_EQ(digest_of(equal_members(10), large, 42), 0xb6485c9bf2d56fe5ull);
  EXPECT_EQ(digest_of(equal_members(1000), large, 42), 0x43bd8bf80fe856a0ull);
  std::vector<member> weighted = equal_members(100);
  for (std::size_t i = 0; i < weighted.size(); ++i)
    weighted[i].weight = static_cast<std::uint32_t>(i + 1);
  EXPECT_EQ(digest_of(weighted, large, 7), 0x5a99425705b26e60ull);
  EXPECT_EQ(digest_of(equal_members(100), 655373, 42), 0x616cb6ba93492030ull);
}

TEST(maglev, two_to_one_is_two_to_one) {
  const std::vector<member> m{{v4(1), 200}, {v4(2), 100}};
  EXPECT_EQ(counts_of(table_of(m), 2), (std::vector<std::uint32_t>{43691, 21846}));
}

TEST(maglev, every_share_is_exact) {
  std::mt19937 random{1};
  double worst = 0;
  for (const unsigned n : {1u, 2u, 3u, 10u, 37u, 100u}) {
    for (int round = 0; round < 4; ++round) {
      std::vector<member> m = equal_members(n);
      for (auto& one : m)
        one.weight =
            round == 0 ? 100 : std::uniform_int_distribution<std::uint32_t>{1, 1000}(random);
      std::uint64_t total = 0;
      for (const auto& one : m) total += one.weight;
      const auto counts = counts_of(table_of(m), n);
      for (unsigned i = 0; i < n; ++i) {
        const double share = static_cast<double>(m[i].weight) * large / static_cast<double>(total);
        EXPECT_LT(std::abs(counts[i] - share), 1.0);
        if (share < 100) continue;  // one entry alone is more than 1% of it
        worst = std::max(worst, std::abs(counts[i] - share) / share);
      }
    }
  }
  EXPECT_LT(worst, 0.01);
  std::printf("balance: worst deviation from a share at 65537 slots: %.3f%%\n", 100 * worst);
  EXPECT_EQ(counts_of(table_of(equal_members(100)), 100), (quotas(equal_members(100), large)));
}

TEST(maglev, more_members_than_slots) {
  const auto counts = counts_of(table_of(equal_members(1000), 251), 1000);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), 1u), 251);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), 0u), 749);
}

TEST(maglev, extreme_weights) {
  std::vector<member> m = equal_members(1000, 1);
  m[500].weight = 65535;
  const auto counts = counts_of(table_of(m), 1000);
  EXPECT_NEAR(counts[500], 65535.0 / 66534 * large, 1);
  // One member: every slot.
  EXPECT_EQ(counts_of(table_of(equal_members(1, max_weight)), 1)[0], large);
}

TEST(maglev, order_of_arrival_does_not_matter) {
  std::mt19937 random{2};
  const std::vector<member> sorted = equal_members(50);
  const auto expected = table_of(sorted);
  for (int i = 0; i < 5; ++i) {
    std::vector<member> shuffled = sorted;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    std::vector<std::uint16_t> out(large);
    if (shuffled != sorted) {
      EXPECT_FALSE(build(shuffled, 42, out));  // refused, not built differently
    }
    std::sort(shuffled.begin(), shuffled.end(),
              [](const member& a, const member& b) { return a.id < b.id; });
    EXPECT_EQ(table_of(shuffled), expected);
  }
  EXPECT_NE(table_of(sorted, large, 43), expected);
}

TEST(maglev, refuses_what_it_cannot_build) {
  std::vector<std::uint16_t> out(large, 7);
  EXPECT_FALSE(build({}, 1, out));
  EXPECT_FALSE(build(equal_members(2, 0), 1, out));
  EXPECT_FALSE(build(equal_members(2, max_weight + 1), 1, out));
  std::vector<member> twice = equal_members(2);
  twice[1] = twice[0];
  EXPECT_FALSE(build(twice, 1, out));
  std::vector<std::uint16_t> even(65536);
  EXPECT_FALSE(build(equal_members(2), 1, even));
  EXPECT_FALSE(build(equal_members(2), 1, std::span<std::uint16_t>{}));
  EXPECT_EQ(std::count(out.begin(), out.end(), 7), large);  // untouched
}

TEST(maglev, disruption) {
  std::printf("moved entries of the others (65537 slots, equal weights unless said):\n");
  for (const unsigned n : {10u, 100u, 1000u}) {
    const std::vector<member> all = equal_members(n);
    double removed_worst = 0;
    double removed_sum = 0;
    int removals = 0;
    for (unsigned i = 0; i < n; i += n / 10) {
      std::vector<member> fewer = all;
      fewer.erase(fewer.begin() + i);
      const double share = moved(all, fewer);
      removed_worst = std::max(removed_worst, share);
      removed_sum += share;
      ++removals;
    }
    std::vector<member> more = all;
    more.push_back({v4(n + 1), 100});
    const identity first = all[0].id;
    std::vector<member> halved = all;
    halved[0].weight = 50;
    std::vector<member> doubled = all;
    doubled[0].weight = 200;
    std::vector<member> nudged = all;
    nudged[0].weight = 101;
    const double half = moved(all, halved, large, &first);
    const double twice = moved(all, doubled, large, &first);
    const double nudge = moved(all, nudged, large, &first);
    // Of those kept, 1/(n+1) must move to the new one; what exceeds that is disruption.
    const double added = moved(all, more) - 1.0 / (n + 1);
    std::printf(
        "  %4u backends: one removed %.3f%% (worst %.3f%%), one added %.3f%% beyond its share, "
        "weight halved %.3f%%, doubled %.3f%%, 100 -> 101 %.3f%%\n",
        n, 100 * removed_sum / removals, 100 * removed_worst, 100 * added, 100 * half, 100 * twice,
        100 * nudge);
    EXPECT_LT(removed_worst, 0.02);
    EXPECT_LT(added, 0.02);
    EXPECT_LT(half, 0.02);
    EXPECT_LT(twice, 0.02 + 1.0 / n);
    EXPECT_LT(nudge, 0.02);
  }
  // A change of the largest weight is where schemes that normalise by it move everything.
  std::vector<member> uneven = equal_members(100);
  for (std::size_t i = 0; i < uneven.size(); i += 2) uneven[i].weight = 37;
  std::vector<member> changed = uneven;
  changed[1].weight = 250;
  const double share = moved(uneven, changed, large, &uneven[1].id);
  std::printf("  100 backends of weights 37 and 100, one 100 -> 250: %.3f%%\n", 100 * share);
  EXPECT_LT(share, 0.04);  // 2.2% of the slots are its new share
}

// plainly() is build() without any of its short cuts.
std::vector<std::uint16_t> plainly(const std::vector<member>& members, std::uint32_t size,
                                   std::uint64_t seed) {
  constexpr std::uint16_t nobody = 0xffff;
  struct one {
    std::uint64_t at, skip, turn;
    std::uint32_t left, weight;
  };
  std::vector<one> all;
  const auto quota = quotas(members, size);
  for (std::size_t i = 0; i < members.size(); ++i) {
    const identity& id = members[i].id;
    std::uint64_t h = sluice_mix64(seed ^ id.address.high());
    h = sluice_mix64(sluice_mix64(h ^ id.address.low()) ^ id.port);
    all.push_back({sluice_mix64(h ^ 0x243f6a8885a308d3ull) % size,
                   sluice_mix64(h ^ 0x13198a2e03707344ull) % (size - 1) + 1, 1, quota[i],
                   members[i].weight});
  }
  std::vector<std::uint16_t> table(size, nobody);
  for (std::uint32_t given = 0; given < size; ++given) {
    std::size_t next = all.size();
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].left == 0) continue;
      if (next == all.size()) {
        next = i;
        continue;
      }
      const std::uint64_t mine = all[i].turn * all[next].weight;
      const std::uint64_t best = all[next].turn * all[i].weight;
      if (mine < best || (mine == best && all[i].weight > all[next].weight)) next = i;
    }
    one& o = all[next];
    while (table[o.at] != nobody) o.at = (o.at + o.skip) % size;
    table[o.at] = static_cast<std::uint16_t>(next);
    --o.left;
    o.turn += 2;
  }
  return table;
}

TEST(maglev, is_what_it_is_without_short_cuts) {
  std::mt19937 random{3};
  for (const std::uint32_t size : {2u, 3u, 5u, 7u, 13u, 17u, 61u, 251u, 1021u, 4099u, 16381u}) {
    for (const unsigned n : {1u, 2u, 5u, 30u, 300u}) {
      for (const std::uint32_t heaviest : {1u, 3u, 1000u}) {
        if (n * std::uint64_t{size} > 400000) continue;
        std::vector<member> m = equal_members(n);
        for (auto& one : m)
          one.weight = std::uniform_int_distribution<std::uint32_t>{1, heaviest}(random);
        const std::uint64_t seed = random();
        ASSERT_EQ(table_of(m, size, seed), plainly(m, size, seed))
            << n << " members up to " << heaviest << " in " << size;
      }
    }
  }
}

TEST(last_slots, the_nearest_is_where_a_walk_arrives_first) {
  std::mt19937 generator{4};
  const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
  for (const std::uint32_t m : {2u, 3u, 11u, 251u, 65537u, 16777213u}) {
    std::vector<std::uint32_t> skips;
    for (int i = 0; i < 50; ++i) skips.push_back(random() % (m - 1) + 1);
    skips.push_back(m - 1);
    const auto inverses = inverse_multipliers(skips, m);
    for (std::size_t i = 0; i < skips.size(); ++i) {
      ASSERT_EQ(std::uint64_t{inverses[i].factor} * skips[i] % m, 1u);
      const std::uint32_t position = i == 0 ? m - 1 : random() % m;
      std::vector<std::uint32_t> slots;
      for (std::size_t k = 0; k < i; ++k) slots.push_back(k == 0 ? 0 : random() % m);
      std::uint32_t least = 0xffffffff;
      for (const std::uint32_t s : slots)
        least = std::min(least, static_cast<std::uint32_t>((s + std::uint64_t{m} - position) *
                                                           inverses[i].factor % m));
      EXPECT_EQ(fewest_steps(slots, position, inverses[i], m), least) << m << " " << i;
      EXPECT_EQ(fewest_steps_portable(slots, position, inverses[i], m), least) << m << " " << i;
    }
  }
}

TEST(maglev, speed) {
  for (const unsigned n : {10u, 100u, 1000u}) {
    const auto m = equal_members(n);
    std::vector<std::uint16_t> table(large);
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      const auto start = std::chrono::steady_clock::now();
      ASSERT_TRUE(build(m, 42, table));
      best = std::min(
          best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                    .count());
    }
    std::printf("build: %u backends, 65537 slots: %.2f ms\n", n, best);
  }
}

}  // namespace
}  // namespace sluice::maglev
