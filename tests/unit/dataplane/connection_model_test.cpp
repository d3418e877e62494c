// SPDX-License-Identifier: Apache-2.0
// The table against std::unordered_map, over random operations. As long as nothing has to
// give way both must agree exactly; when something does, the table says what, and the
// model follows it.
#include <gtest/gtest.h>

#include <unordered_map>
#include <vector>

#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

using enum connection_state;
using test::key_maker;
using test::map_memory;
using test::plain;

template <class Family>
class model : public ::testing::Test {
 protected:
  using keys = key_maker<Family>;

  // The backend's number is the key's number, so that an evicted word names its key.
  static connection_word word_of(std::uint64_t n, connection_state s, std::uint16_t now) {
    return test::word(s, now, static_cast<std::uint32_t>(n));
  }

  void run(std::uint64_t buckets, std::uint64_t key_count, int operations, bool may_evict,
           instruction_set set) {
    if (set > best_instruction_set()) GTEST_SKIP() << "not on this processor";
    const map_memory<Family> memory{buckets};
    flow_map<Family> map{memory.data(), buckets, test::secret, set};
    std::unordered_map<std::uint64_t, connection_word> expected;
    test::random_source random{key_count};
    std::uint16_t now = 65'000;  // wraps soon
    std::uint64_t sweep_at = 0;
    std::uint64_t gone_count = 0;
    const auto gone = [&](connection_word w) {
      const auto it = expected.find(w.backend().index());
      ASSERT_NE(it, expected.end());
      ASSERT_EQ(it->second, w);
      ASSERT_TRUE(map.expired(w, now));
      expected.erase(it);
      ++gone_count;
    };
    for (int i = 0; i < operations; ++i) {
      const std::uint64_t n = random.below(key_count);
      const auto key = keys::make(n);
      const auto h = map.hash(key);
      const auto it = expected.find(n);
      const handle at = map.find(h, key);
      ASSERT_EQ(at != nullptr, it != expected.end()) << i;
      if (at != nullptr) {
        ASSERT_EQ(plain(*at), it->second) << i;
      }
      switch (random.below(8)) {
        case 0:
        case 1:
        case 2: {  // insert
          static constexpr connection_state states[] = {syn, learned, udp_new, established};
          const connection_word w = word_of(n, states[random.below(4)], now);
          const insertion in = map.insert(h, key, w);
          if (it != expected.end() && !map.expired(it->second, now)) {
            ASSERT_EQ(in.outcome, outcome::existing);
            ASSERT_EQ(in.handle, at);
            break;
          }
          if (in.outcome == outcome::expired || in.outcome == outcome::evicted) {
            const auto old = expected.find(in.old.backend().index());
            ASSERT_NE(old, expected.end());
            ASSERT_EQ(old->second, in.old);
            ASSERT_EQ(map.expired(in.old, now), in.outcome == outcome::expired);
            expected.erase(old);
            gone_count += in.outcome == outcome::expired;
          }
          if (!may_evict) {
            // A closed one may always go.
            ASSERT_TRUE(in.outcome != outcome::evicted || in.old.state() == closed);
            ASSERT_NE(in.outcome, outcome::no_room);
          }
          if (in.handle != nullptr) {
            ASSERT_EQ(plain(*in.handle), w);
            expected[n] = w;
          }
          break;
        }
        case 3:
        case 4: {  // store
          if (at == nullptr) break;
          const auto s = static_cast<connection_state>(1 + random.below(7));
          map.store(at, word_of(n, s, now));
          it->second = word_of(n, s, now);
          break;
        }
        case 5:
          if (at == nullptr) break;
          map.erase(at);
          expected.erase(it);
          break;
        case 6:
          sweep_at = map.sweep(sweep_at, random.below(20), now, gone);
          break;
        default:
          if (random.below(20) == 0) ++now;
      }
      if (i % 20'000 == 0) {
        ASSERT_TRUE(map.consistent()) << i;
        ASSERT_EQ(map.size(), expected.size());
        std::array<std::uint64_t, abi::connection_state_count> states{};
        std::uint64_t listed = 0;
        map.for_each([&](const auto& k, connection_word w) {
          ++listed;
          ++states[static_cast<std::size_t>(w.state())];
          ASSERT_EQ(k, keys::make(w.backend().index()));
          ASSERT_EQ(expected.at(w.backend().index()), w);
        });
        ASSERT_EQ(listed, expected.size());
        for (std::size_t s = 1; s < states.size(); ++s)
          ASSERT_EQ(map.size(static_cast<connection_state>(s)), states[s]);
        // And all at once.
        std::vector<typename Family::key_type> all;
        std::vector<bucket_hash> hashes;
        for (std::uint64_t k = 0; k < key_count; ++k) {
          all.push_back(keys::make(k));
          hashes.push_back(map.hash(all.back()));
        }
        std::vector<handle> found(all.size());
        map.find_bulk(all.data(), hashes.data(), found.data(), static_cast<unsigned>(all.size()));
        for (std::uint64_t k = 0; k < key_count; ++k)
          ASSERT_EQ(found[k] != nullptr, expected.contains(k)) << k;
      }
    }
    // (In two buckets nothing is left alone for long enough.)
    if (buckets > 2) {
      EXPECT_GT(gone_count, 0u) << "nothing ever expired: the clock did not advance";
    }
  }
};
using families = ::testing::Types<ipv4, ipv6>;
TYPED_TEST_SUITE(model, families);

TYPED_TEST(model, HalfFull) {
  this->run(211, 600, 300'000, false, best_instruction_set());
}
TYPED_TEST(model, Overfull) {
  this->run(101, 1000, 300'000, true, best_instruction_set());
}
TYPED_TEST(model, TwoBuckets) {
  this->run(2, 20, 200'000, true, best_instruction_set());
}
TYPED_TEST(model, OverfullAvx2) {
  this->run(101, 1000, 100'000, true, instruction_set::avx2);
}
TYPED_TEST(model, OverfullScalar) {
  this->run(101, 1000, 100'000, true, instruction_set::scalar);
}

}  // namespace
}  // namespace sluice::connection
