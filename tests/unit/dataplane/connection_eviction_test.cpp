// SPDX-License-Identifier: Apache-2.0
// Who gives way to whom in a full bucket, and that a flood costs the living nothing.
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

using enum connection_state;
using test::key_maker;
using test::map_memory;
using test::word;

struct resident {
  connection_state state;
  std::uint16_t idle;
};

struct row {
  const char* name;
  std::vector<resident> residents;  // the rest of the eight: established, idle 0
  connection_state newcomer;
  outcome result;
  resident gone;  // for expired and evicted
};

// Two buckets only, so that every key may live in both: all eight places compete.
const row rows[] = {
    {"established never give way to a SYN", {{established, 890}}, syn, outcome::no_room, {}},
    {"nor to a datagram", {{established, 890}}, udp_new, outcome::no_room, {}},
    {"nor, when fresh, to a learned one", {{established, 225}}, learned, outcome::no_room, {}},
    {"idle for over a quarter: to a learned one",
     {{established, 226}, {established, 300}},
     learned,
     outcome::evicted,
     {established, 300}},
    {"expired before anything else",
     {{established, 901}, {closed, 5}, {syn, 29}},
     syn,
     outcome::expired,
     {established, 901}},
    {"an expired embryonic one", {{syn, 31}, {closed, 9}}, syn, outcome::expired, {syn, 31}},
    {"closed before embryonic",
     {{syn, 29}, {closed, 1}, {learned, 50}},
     syn,
     outcome::evicted,
     {closed, 1}},
    {"oldest closed", {{closed, 1}, {closed, 9}, {closed, 3}}, syn, outcome::evicted, {closed, 9}},
    {"embryonic before closing", {{closing, 110}, {syn, 0}}, syn, outcome::evicted, {syn, 0}},
    {"oldest embryonic, whichever kind",
     {{syn, 3}, {learned, 20}, {udp_new, 7}},
     syn,
     outcome::evicted,
     {learned, 20}},
    {"oldest embryonic: syn",
     {{syn, 21}, {learned, 20}, {udp_new, 7}},
     learned,
     outcome::evicted,
     {syn, 21}},
    {"oldest embryonic: udp_new",
     {{syn, 3}, {learned, 20}, {udp_new, 27}},
     udp_new,
     outcome::evicted,
     {udp_new, 27}},
    {"closing before udp", {{closing, 1}, {udp, 200}}, syn, outcome::evicted, {closing, 1}},
    {"udp idle for over a quarter",
     {{udp, 76}, {udp, 10}, {established, 800}},
     syn,
     outcome::evicted,
     {udp, 76}},
    {"a live udp flow stays", {{udp, 75}, {udp, 10}}, syn, outcome::no_room, {}},
    {"udp before established",
     {{udp, 76}, {established, 800}},
     learned,
     outcome::evicted,
     {udp, 76}},
    {"a live newcomer takes the oldest udp",
     {{udp, 10}, {udp, 4}, {established, 800}},
     established,
     outcome::evicted,
     {udp, 10}},
    {"a live newcomer takes the oldest established",
     {{established, 5}, {established, 3}},
     established,
     outcome::evicted,
     {established, 5}},
};

template <class Family>
class eviction : public ::testing::Test {};
using families = ::testing::Types<ipv4, ipv6>;
TYPED_TEST_SUITE(eviction, families);

// keys_of_two_buckets() are the numbers of n keys that may live in the buckets 0 and 1 only; the
// primary of them all is 0, if `one_home`.
template <class Family>
std::vector<std::uint64_t> keys_of_two_buckets(const flow_map<Family>& map, unsigned n,
                                               bool one_home = false) {
  std::vector<std::uint64_t> out;
  for (std::uint64_t i = 0; out.size() < n; ++i) {
    const bucket_hash h = map.hash(key_maker<Family>::make(i));
    const std::uint64_t first = primary_bucket(h, map.bucket_count());
    const std::uint64_t second = secondary_bucket(h, map.bucket_count());
    if (first + second == 1 && (!one_home || first == 0)) out.push_back(i);
  }
  return out;
}

// In a table that is nearly full (two buckets, which these entries fill), and in one that is not.
TYPED_TEST(eviction, OrderOfGivingWay) {
  using keys = key_maker<TypeParam>;
  constexpr unsigned places = 2 * TypeParam::per_bucket;
  constexpr std::uint16_t now = 1000;  // words of idle 1001 and more wrap: covered elsewhere
  for (const std::uint64_t buckets : {2u, 24u}) {
    const map_memory<TypeParam> scratch{buckets};
    const std::vector<std::uint64_t> numbers = keys_of_two_buckets(scratch.map(), places + 1);
    for (const row& r : rows) {
      if (r.residents.size() > places) continue;
      // The residents in every rotation over the places, and from several search starts.
      for (unsigned rotation = 0; rotation < places; ++rotation) {
        SCOPED_TRACE(std::string{r.name} + ", rotation " + std::to_string(rotation) + ", " +
                     std::to_string(buckets) + " buckets");
        const map_memory<TypeParam> memory{buckets};
        auto map = memory.map();
        std::vector<connection_word> in;
        for (unsigned i = 0; i < places; ++i) {
          const unsigned at = (i + rotation) % places;
          const resident who = at < r.residents.size() ? r.residents[at] : resident{established, 0};
          const connection_word w = word(who.state, static_cast<std::uint16_t>(now - who.idle), i);
          // Entered as if at its own time, or the earlier ones would be expired by it.
          const auto key = keys::make(numbers[i]);
          ASSERT_NE(map.insert(map.hash(key), key, word(established, now, i)).handle, nullptr);
          in.push_back(w);
        }
        ASSERT_EQ(map.size(), places);
        for (unsigned i = 0; i < places; ++i) {
          const auto key = keys::make(numbers[i]);
          map.store(map.find(map.hash(key), key), in[i]);
        }
        const auto key = keys::make(numbers[places]);
        resident gone = r.gone;
        outcome result = r.result;
        // In a table that is nearly full: who of the newcomer's primary bucket is expired, closed
        // or embryonic goes before the other bucket is looked into.
        std::uint32_t most = 0;
        for (unsigned i = 0; i < places && buckets == 2; ++i) {
          const auto k = keys::make(numbers[i]);
          const std::uint64_t home = primary_bucket(map.hash(k), 2);
          const bool here = (map.in_primary(map.hash(k), k) ? home : 1 - home) ==
                            primary_bucket(map.hash(key), 2);
          const auto idle = static_cast<std::uint16_t>(now - in[i].seen());
          const connection_state state = in[i].state();
          const std::uint32_t rank = map.expired(in[i], now)                                ? 3
                                     : state == closed                                      ? 2
                                     : state == syn || state == learned || state == udp_new ? 1
                                                                                            : 0;
          if (!here || rank == 0 || (rank << 16 | idle) < most) continue;
          most = rank << 16 | idle;
          gone = {state, idle};
          result = rank == 3 ? outcome::expired : outcome::evicted;
        }
        const insertion got = map.insert(map.hash(key), key, word(r.newcomer, now, 99));
        EXPECT_EQ(got.outcome, result);
        EXPECT_TRUE(map.consistent());
        if (result == outcome::no_room) {
          EXPECT_EQ(got.handle, nullptr);
          EXPECT_EQ(map.find(map.hash(key), key), nullptr);
        } else {
          EXPECT_EQ(got.old.state(), gone.state);
          EXPECT_EQ(now - got.old.seen(), gone.idle);
          EXPECT_EQ(map.find(map.hash(key), key), got.handle);
          EXPECT_EQ(map.size(), places);
        }
        for (unsigned i = 0; i < places; ++i) {
          const auto k = keys::make(numbers[i]);
          const bool evicted = got.handle != nullptr && got.old.backend().index() == i;
          EXPECT_EQ(map.find(map.hash(k), k) == nullptr, evicted) << i;
        }
      }
    }
  }
}

TYPED_TEST(eviction, FreePlaceInTheSecondaryBeforeAnyEviction) {
  using keys = key_maker<TypeParam>;
  const map_memory<TypeParam> memory{24};
  auto map = memory.map();
  const auto numbers = keys_of_two_buckets(map, 2 * TypeParam::per_bucket, true);
  for (const std::uint64_t i : numbers) {
    const auto key = keys::make(i);
    EXPECT_EQ(map.insert(map.hash(key), key, word(closed, 1)).outcome, outcome::inserted) << i;
  }
}

// The other way round when the table is nearly full (two buckets are so with one entry).
TYPED_TEST(eviction, OwnHalfOpenOneBeforeTheSecondaryOfANearlyFullTable) {
  using keys = key_maker<TypeParam>;
  const map_memory<TypeParam> memory{2};
  auto map = memory.map();
  const auto numbers = keys_of_two_buckets(map, TypeParam::per_bucket + 1, true);
  for (const std::uint64_t i : numbers) {
    const auto key = keys::make(i);
    EXPECT_EQ(map.insert(map.hash(key), key, word(syn, 1)).outcome,
              i == numbers.back() ? outcome::evicted : outcome::inserted)
        << i;
  }
  EXPECT_EQ(map.size(), TypeParam::per_bucket);
  EXPECT_TRUE(map.consistent());
}

// Both instruction sets choose the same place of a bucket, and of two, whatever is in them.
TYPED_TEST(eviction, TwinsAgree) {
  if (best_instruction_set() < instruction_set::avx2) GTEST_SKIP() << "not on this processor";
  alignas(32) static constexpr std::array<std::int32_t, 8> patience{-1, 10,  30,  60,
                                                                    30, 120, 300, 900};
  test::random_source random{17};
  std::array<std::uint64_t, 8> met{};
  for (int round = 0; round < 200'000; ++round) {
    std::array<typename TypeParam::bucket, 2> buckets{};
    const auto now = static_cast<std::uint16_t>(random());
    // Few states and few ages, so that many are equal; all the other bits are anything.
    const std::uint64_t states = 1 + random.below(8);
    const std::uint64_t ages = random.below(4) == 0 ? 1000 : 1 + random.below(40);
    const bool room = random.below(4) == 0;
    for (auto& b : buckets)
      for (auto& e : b.entries) {
        const auto state = static_cast<connection_state>(room ? random.below(states)
                                                              : 1 + (states + random.below(2)) % 7);
        const auto seen = static_cast<std::uint16_t>(now - random.below(ages));
        e.word = connection_word{random()}.with_state(state).with_seen(seen);
      }
    const auto turn = static_cast<unsigned>(random());
    bool full = true;
    for (const auto& b : buckets) {
      const vacancy one = vacancy_scalar<TypeParam>(b, now, patience.data(), turn);
      const vacancy two = vacancy_avx2<TypeParam>(b, now, patience.data(), turn);
      ASSERT_EQ(one.rank, two.rank) << round;
      if (one.rank >= yielding_rank) {
        ASSERT_EQ(one.at, two.at) << round;
      }
      full = full && one.rank < expired_rank;
      ++met[one.rank];
    }
    if (!full) continue;
    const auto newcomer = static_cast<connection_state>(1 + random.below(7));
    ASSERT_EQ(
        victim_scalar<TypeParam>(buckets[0], buckets[1], newcomer, now, patience.data(), turn),
        victim_avx2<TypeParam>(buckets[0], buckets[1], newcomer, now, patience.data(), turn))
        << round;
  }
  for (const std::uint32_t rank : {all_established, none_yields, 4u, 5u, expired_rank, free_rank})
    EXPECT_GT(met[rank], 1000u) << rank;
}

// A flood of SYNs, ten times the table's size, within a few seconds, beside established
// connections that send now and then, up to 60% of the table.
TYPED_TEST(eviction, SynFloodTakesNothingFromTheEstablished) {
  using keys = key_maker<TypeParam>;
  const map_memory<TypeParam> memory{2000};
  auto map = memory.map();
  const std::uint64_t live = map.capacity() * 6 / 10;
  std::vector<std::uint64_t> established_keys;
  for (std::uint64_t i = 0; i < live; ++i) {
    const auto key = keys::make(i);
    const auto in = map.insert(map.hash(key), key, word(syn, 100, static_cast<std::uint32_t>(i)));
    if (in.outcome != outcome::inserted) continue;
    map.store(in.handle, word(established, 100, static_cast<std::uint32_t>(i)));
    established_keys.push_back(i);
  }
  // Datagram flows and closing connections are not the flood's business either... but
  // closing ones may give way; established and live udp may not.
  std::uint64_t evicted = 0;
  std::uint64_t no_room = 0;
  const std::uint64_t flood = 10 * map.capacity();
  for (std::uint64_t i = 0; i < flood; ++i) {
    const auto now = static_cast<std::uint16_t>(100 + i * 20 / flood);
    const auto key = keys::make(1'000'000 + i);
    const auto in = map.insert(map.hash(key), key, word(syn, now));
    evicted += in.outcome == outcome::evicted;
    no_room += in.outcome == outcome::no_room;
    if (in.outcome == outcome::evicted) {
      ASSERT_EQ(in.old.state(), syn);
    }
  }
  for (const std::uint64_t i : established_keys) {
    const auto key = keys::make(i);
    const handle at = map.find(map.hash(key), key);
    ASSERT_NE(at, nullptr) << i;
    ASSERT_EQ(at->backend().index(), i);
    ASSERT_EQ(at->state(), established);
  }
  EXPECT_EQ(map.size(established), established_keys.size());
  EXPECT_TRUE(map.consistent());
  std::printf(
      "flood of %lu SYNs over %lu places with %zu established: %lu SYNs gave way, %lu had no "
      "room\n",
      static_cast<unsigned long>(flood), static_cast<unsigned long>(map.capacity()),
      established_keys.size(), static_cast<unsigned long>(evicted),
      static_cast<unsigned long>(no_room));
  // And afterwards the table is as good as new.
  map.sweep(0, map.bucket_count(), 100 + 20 + 31,
            [](connection_word w) { ASSERT_EQ(w.state(), syn); });
  EXPECT_EQ(map.size(), established_keys.size());
  EXPECT_TRUE(map.consistent());
}

// Real handshakes in the middle of a flood: the SYN's entry must live until the ACK, for
// most, though the flood turns over the embryonic ones all the time.
TYPED_TEST(eviction, HandshakesDuringAFloodMostlyKeepTheirEntry) {
  using keys = key_maker<TypeParam>;
  const map_memory<TypeParam> memory{4000};
  auto map = memory.map();
  for (std::uint64_t i = 0; i < 4 * map.capacity(); ++i) {
    const auto key = keys::make(10'000'000 + i);
    map.insert(map.hash(key), key, word(syn, 100));
  }
  const std::uint64_t handshakes = 500;
  for (std::uint64_t i = 0; i < handshakes; ++i) {
    const auto key = keys::make(i);
    map.insert(map.hash(key), key, word(syn, 100));
  }
  // Between SYN and ACK half a table of SYNs arrives, in the same second.
  for (std::uint64_t i = 0; i < map.capacity() / 2; ++i) {
    const auto key = keys::make(20'000'000 + i);
    map.insert(map.hash(key), key, word(syn, 100));
  }
  std::uint64_t kept = 0;
  for (std::uint64_t i = 0; i < handshakes; ++i) {
    const auto key = keys::make(i);
    kept += map.find(map.hash(key), key) != nullptr;
  }
  std::printf("%lu of %lu handshakes kept their entry\n", static_cast<unsigned long>(kept),
              static_cast<unsigned long>(handshakes));
  // Random choice among equals keeps about exp(-1/2) = 61%; always the same place: 25% of
  // the newcomers' places would be overwritten first.
  EXPECT_GT(kept, handshakes * 45 / 100);
}

}  // namespace
}  // namespace sluice::connection
