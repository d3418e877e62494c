// SPDX-License-Identifier: Apache-2.0
// The connection table's basic operations, clock, sweep and overflow bookkeeping.
#include "dataplane/connection/table.hpp"

#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

using enum connection_state;
using test::map_memory;
using test::plain;
using test::word;

template <class Family>
class table : public ::testing::Test {
 protected:
  using maker = test::key_maker<Family>;
};
using families = ::testing::Types<ipv4, ipv6>;
TYPED_TEST_SUITE(table, families);

TYPED_TEST(table, InsertFindStoreErase) {
  const map_memory<TypeParam> memory{64};
  auto map = memory.map();
  const auto key = TestFixture::maker::make(5);
  const auto h = map.hash(key);
  EXPECT_EQ(map.find(h, key), nullptr);

  const auto first = map.insert(h, key, word(syn, 100));
  ASSERT_EQ(first.outcome, outcome::inserted);
  EXPECT_EQ(map.find(h, key), first.handle);
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map.size(syn), 1u);

  // The same new flow twice in one burst.
  const auto second = map.insert(h, key, word(syn, 100, 9));
  EXPECT_EQ(second.outcome, outcome::existing);
  EXPECT_EQ(second.handle, first.handle);
  EXPECT_EQ(second.handle->backend().index(), 7u);

  map.store(first.handle, word(established, 101, 7));
  EXPECT_EQ(map.size(syn), 0u);
  EXPECT_EQ(map.size(established), 1u);
  EXPECT_EQ(plain(*first.handle), word(established, 101, 7));

  map.erase(first.handle);
  EXPECT_EQ(map.find(h, key), nullptr);
  EXPECT_EQ(map.size(), 0u);
  EXPECT_TRUE(map.consistent());
}

TYPED_TEST(table, KeysThatDifferInOneFieldAreDifferent) {
  const map_memory<TypeParam> memory{64};
  auto map = memory.map();
  const auto insert = [&](const auto& key, std::uint32_t backend, abi::vip_id vip) {
    return map.insert(map.hash(key), key, word(syn, 1, backend, vip)).outcome;
  };
  const auto a = TestFixture::maker::make(0, abi::vip_id{1});
  const auto b = TestFixture::maker::make(0, abi::vip_id{2});
  const auto c = TestFixture::maker::make(1, abi::vip_id{1});
  EXPECT_EQ(insert(a, 1, abi::vip_id{1}), outcome::inserted);
  EXPECT_EQ(insert(b, 2, abi::vip_id{2}), outcome::inserted);
  EXPECT_EQ(insert(c, 3, abi::vip_id{1}), outcome::inserted);
  EXPECT_EQ(map.find(map.hash(a), a)->backend().index(), 1u);
  EXPECT_EQ(map.find(map.hash(b), b)->backend().index(), 2u);
  EXPECT_EQ(map.find(map.hash(c), c)->backend().index(), 3u);
  EXPECT_EQ(map.find(map.hash(b), b)->vip(), abi::vip_id{2});
}

TYPED_TEST(table, AllZeroKeyOfVipZeroIsNotAFreePlace) {
  const map_memory<TypeParam> memory{2};
  auto map = memory.map();
  typename TypeParam::key_type key{};
  key.vip_bits = connection_word::vip_bits(abi::vip_id{0});
  EXPECT_EQ(map.find(map.hash(key), key), nullptr);
  const auto in = map.insert(map.hash(key), key, word(syn, 0, 0, abi::vip_id{0}));
  EXPECT_EQ(in.outcome, outcome::inserted);
  EXPECT_EQ(map.find(map.hash(key), key), in.handle);
}

TYPED_TEST(table, BulkFindEqualsFind) {
  const map_memory<TypeParam> memory{500};
  auto map = memory.map();
  // 90% load, so that many are in their secondary bucket; half of the keys are missing.
  const std::uint64_t n = map.capacity() * 9 / 10;
  for (std::uint64_t i = 0; i < n; ++i) {
    const auto key = TestFixture::maker::make(i);
    map.insert(map.hash(key), key, word(established, 1));
  }
  for (const unsigned burst : {1u, 7u, 32u, 64u, 65u, 200u, 256u}) {
    std::vector<typename TypeParam::key_type> keys;
    std::vector<bucket_hash> hashes;
    std::vector<handle> found(burst, nullptr);
    for (std::uint64_t at = 0; at < 2 * n; at += burst) {
      keys.clear();
      hashes.clear();
      for (unsigned i = 0; i < burst; ++i) {
        keys.push_back(TestFixture::maker::make(at + i));
        hashes.push_back(map.hash(keys.back()));
        map.prefetch(hashes.back());
      }
      map.find_bulk(keys.data(), hashes.data(), found.data(), burst);
      for (unsigned i = 0; i < burst; ++i)
        ASSERT_EQ(found[i], map.find(hashes[i], keys[i])) << at + i << " burst " << burst;
    }
  }
}

TYPED_TEST(table, ClockWraps) {
  const map_memory<TypeParam> memory{16};
  auto map = memory.map();
  // Every start of the 16-bit clock: alive up to its timeout, expired after.
  for (std::uint32_t start = 0; start < 0x10000; start += 251) {
    const auto seen = static_cast<std::uint16_t>(start);
    const auto at = [&](std::uint32_t later) { return static_cast<std::uint16_t>(start + later); };
    const connection_word w = word(established, seen);
    ASSERT_FALSE(map.expired(w, at(0)));
    ASSERT_FALSE(map.expired(w, at(900)));
    ASSERT_TRUE(map.expired(w, at(901)));
    ASSERT_TRUE(map.expired(w, at(32767)));
    ASSERT_TRUE(map.expired(w, at(65535)));
  }
  // A timeout beyond what the clock can tell is cut.
  auto t = abi::default_timeouts;
  t[static_cast<std::size_t>(established)] = 65535;
  map.set_timeouts(t);
  EXPECT_FALSE(map.expired(word(established, 0), 32767));
  EXPECT_TRUE(map.expired(word(established, 0), 32768));
}

TYPED_TEST(table, SweepRemovesTheExpiredAndOnlyThem) {
  const map_memory<TypeParam> memory{100};
  auto map = memory.map();
  std::set<std::uint64_t> alive;
  // The old ones first: an insert's time is the table's, and to an earlier one those that are seen
  // later look expired, and give way where a bucket is full. Across the wrap of the clock.
  for (const bool old : {true, false})
    for (std::uint64_t i = 0; i < 150; ++i) {
      if (old != (i % 3 == 0)) continue;
      const auto key = TestFixture::maker::make(i);
      const auto seen = static_cast<std::uint16_t>(old ? 65000 : 65400);
      const auto in = map.insert(map.hash(key), key, word(established, seen));
      ASSERT_EQ(in.outcome, outcome::inserted);
      if (!old) alive.insert(i);
    }
  const auto now = static_cast<std::uint16_t>(65000 + 901);  // 365
  std::uint64_t gone = 0;
  std::uint64_t at = 0;
  unsigned steps = 0;
  do {
    at = map.sweep(at, 7, now, [&](connection_word w) {
      EXPECT_EQ(w.seen(), 65000);
      EXPECT_EQ(w.value & connection_word::spare_mask, 0u);
      ++gone;
    });
  } while (++steps < 15);
  EXPECT_EQ(at, 15u * 7 % 100);
  EXPECT_EQ(gone, 50u);
  EXPECT_EQ(map.size(), alive.size());
  for (std::uint64_t i = 0; i < 150; ++i) {
    const auto key = TestFixture::maker::make(i);
    EXPECT_EQ(map.find(map.hash(key), key) != nullptr, alive.contains(i)) << i;
  }
  EXPECT_TRUE(map.consistent());
}

TYPED_TEST(table, ExpiredEntryOfTheSameKeyIsReplaced) {
  const map_memory<TypeParam> memory{4};
  auto map = memory.map();
  const auto key = TestFixture::maker::make(1);
  const auto h = map.hash(key);
  const auto first = map.insert(h, key, word(established, 10, 1));
  const auto again = map.insert(h, key, word(syn, 10 + 901, 2));
  EXPECT_EQ(again.outcome, outcome::expired);
  EXPECT_EQ(again.handle, first.handle);
  EXPECT_EQ(again.old, word(established, 10, 1));
  EXPECT_EQ(plain(*again.handle), word(syn, 911, 2));
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map.size(syn), 1u);
  EXPECT_EQ(map.size(established), 0u);
}

TYPED_TEST(table, MillionsOfInsertsAndErasesKeepTheBooks) {
  const map_memory<TypeParam> memory{331};  // not a power of two
  auto map = memory.map();
  test::random_source random{7};
  const std::uint64_t keys = 2 * map.capacity();  // half of them are in: full to the brim
  std::uint64_t refused = 0;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 100'000; ++i) {
      const auto key = TestFixture::maker::make(random.below(keys));
      const auto h = map.hash(key);
      if (const handle at = map.find(h, key); at != nullptr) {
        map.erase(at);
      } else {
        const insertion in = map.insert(h, key, word(syn, 1));
        if (in.handle != nullptr) map.store(in.handle, word(established, 1));
        refused += in.outcome == outcome::no_room;
      }
    }
    ASSERT_TRUE(map.consistent()) << "round " << round;
  }
  // Drained, nothing must be left in the spare bits: every byte is zero again.
  map.erase_if(
      0, map.bucket_count(), [](connection_word) { return true; }, [](connection_word) {});
  EXPECT_EQ(map.size(), 0u);
  const auto* bytes = static_cast<const unsigned char*>(memory.data());
  for (std::size_t i = 0; i < memory.bytes(); ++i) ASSERT_EQ(bytes[i], 0) << "byte " << i;
  EXPECT_GT(refused, 0u) << "the test never filled a bucket";
}

TYPED_TEST(table, ConsistentFindsDamage) {
  const map_memory<TypeParam> memory{40};
  auto map = memory.map();
  for (std::uint64_t i = 0; i < 60; ++i) {
    const auto key = TestFixture::maker::make(i);
    map.insert(map.hash(key), key, word(established, 1));
  }
  ASSERT_TRUE(map.consistent());
  auto* buckets = static_cast<typename TypeParam::bucket*>(memory.data());
  auto& w = buckets[3].entries[0].word.value;
  w ^= std::uint64_t{1} << connection_word::spare_shift;
  EXPECT_FALSE(map.consistent());
  w ^= std::uint64_t{1} << connection_word::spare_shift;
  ASSERT_TRUE(map.consistent());
  buckets[3].entries[0].word.value |= 0xfull << connection_word::state_shift;
  EXPECT_FALSE(map.consistent());
}

TYPED_TEST(table, AnotherMapOnTheSameMemoryGoesOn) {
  const map_memory<TypeParam> memory{50};
  auto map = memory.map();
  for (std::uint64_t i = 0; i < 80; ++i) {
    const auto key = TestFixture::maker::make(i);
    map.insert(map.hash(key), key, word(i % 2 ? established : syn, 1));
  }
  auto heir = memory.map();
  heir.recount();
  EXPECT_TRUE(heir.consistent());
  EXPECT_EQ(heir.size(), map.size());
  EXPECT_EQ(heir.size(syn), 40u);
  for (std::uint64_t i = 0; i < 80; ++i) {
    const auto key = TestFixture::maker::make(i);
    EXPECT_NE(heir.find(heir.hash(key), key), nullptr);
  }
}

TYPED_TEST(table, ForEachGivesEveryEntryOnce) {
  const map_memory<TypeParam> memory{50};
  auto map = memory.map();
  for (std::uint64_t i = 0; i < 70; ++i) {
    const auto key = TestFixture::maker::make(i);
    map.insert(map.hash(key), key, word(syn, 1, static_cast<std::uint32_t>(i)));
  }
  std::set<std::uint32_t> seen;
  map.for_each([&](const auto& key, connection_word w) {
    EXPECT_EQ(key, TestFixture::maker::make(w.backend().index()));
    EXPECT_TRUE(seen.insert(w.backend().index()).second);
  });
  EXPECT_EQ(seen.size(), 70u);
}

}  // namespace
}  // namespace sluice::connection
