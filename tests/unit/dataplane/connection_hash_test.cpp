// SPDX-License-Identifier: Apache-2.0
// The bucket hash: even for keys with structure, and nothing that is prepared for one
// secret works under another.
#include "dataplane/connection/bucket_hash.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <set>
#include <vector>

#include "dataplane/connection/bulk_find.hpp"
#include "tests/unit/dataplane/connection_fixture.hpp"

namespace sluice::connection {
namespace {

// Largest distance from even, in standard deviations, of `n` keys over `buckets`.
template <class Keys>
void expect_even(const char* what, Keys&& key_of) {
  constexpr std::uint64_t n = 1 << 18;
  constexpr std::uint64_t buckets = 1009;
  const bucket_hasher hasher{test::secret};
  std::vector<std::uint32_t> first(buckets), second(buckets);
  for (std::uint64_t i = 0; i < n; ++i) {
    const bucket_hash h = hasher(key_of(i));
    ++first[primary_bucket(h, buckets)];
    ++second[(h.value & 0xffffffffu) * buckets >> 32];
  }
  for (const auto* counts : {&first, &second}) {
    double chi2 = 0;
    const double mean = static_cast<double>(n) / buckets;
    for (const std::uint32_t c : *counts) chi2 += (c - mean) * (c - mean) / mean;
    // chi-squared of 1008 degrees: mean 1008, deviation sqrt(2016) = 45; six deviations.
    EXPECT_LT(chi2, 1008 + 6 * 45) << what;
    EXPECT_GT(chi2, 1008 - 6 * 45) << what;
  }
}

TEST(hash, EvenForStructuredKeys) {
  const auto vip = abi::vip_id{3};
  expect_even("one client, all ports", [&](std::uint64_t i) {
    return key4::make(be32{0xc0000200 + static_cast<std::uint32_t>(i >> 16)},
                      be16{static_cast<std::uint16_t>(i)}, be16{443}, vip);
  });
  expect_even("consecutive addresses, one port", [&](std::uint64_t i) {
    return key4::make(be32{0x0a000000 + static_cast<std::uint32_t>(i)}, be16{40000}, be16{443},
                      vip);
  });
  expect_even("addresses that differ in the high bits only", [&](std::uint64_t i) {
    return key4::make(be32{static_cast<std::uint32_t>(i << 14)}, be16{40000}, be16{443}, vip);
  });
  expect_even("VIPs and destination ports", [&](std::uint64_t i) {
    return key4::make(be32{0x0a000001}, be16{40000}, be16{static_cast<std::uint16_t>(i)},
                      abi::vip_id{static_cast<std::uint16_t>(i >> 16)});
  });
  const auto v6 = [&](std::uint64_t high, std::uint64_t low, std::uint16_t port) {
    ip_address a;
    std::memcpy(a.bytes.data(), &high, 8);
    std::memcpy(a.bytes.data() + 8, &low, 8);
    return key6::make(a, be16{port}, be16{443}, vip);
  };
  expect_even("IPv6, low half", [&](std::uint64_t i) { return v6(0x20010db8, i, 1); });
  expect_even("IPv6, high half", [&](std::uint64_t i) { return v6(i << 40, 1, 1); });
  expect_even("IPv6, ports",
              [&](std::uint64_t i) { return v6(1, i >> 16, static_cast<std::uint16_t>(i)); });
}

// FIPS 197 appendix B, round 1: the state is given by columns, as it is in memory.
constexpr aes_block block_of(std::uint64_t first, std::uint64_t second) {
  return {byte_swap(first), byte_swap(second)};
}
TEST(hash, RoundOfAesIsTheStandards) {
  constexpr aes_block state = block_of(0x193de3bea0f4e22b, 0x9ac68d2ae9f84808);
  constexpr aes_block key = block_of(0xa0fafe1788542cb1, 0x23a339392a6c7605);
  constexpr aes_block behind = block_of(0xa49c7ff2689f352b, 0x6b5bea43026a5049);
  static_assert(aes_round_portable(state, key) == behind);
  EXPECT_EQ(detail::aes_sbox[0x00], 0x63);
  EXPECT_EQ(detail::aes_sbox[0x53], 0xed);  // section 5.1.1
  EXPECT_EQ(std::set<std::uint8_t>(detail::aes_sbox.begin(), detail::aes_sbox.end()).size(), 256u);
}

// The instruction and its twin in C++ give the same, as does what is worked out by the compiler.
TEST(hash, WithAndWithoutTheInstruction) {
  if (!has_aes) GTEST_SKIP() << "this processor has no instruction for AES";
  test::random_source random{20};
  for (unsigned secrets = 0; secrets < 100; ++secrets) {
    const bucket_hasher hasher{{secrets == 0 ? 0 : random(), secrets == 0 ? 0 : random()}};
    for (unsigned i = 0; i < 1000; ++i) {
      const key4 four{random(), random() & 0xffff};
      const key6 six{random(), random(), random() & 0xffffffff, random() & 0xffff};
      ASSERT_EQ(hasher(four).value, hasher.portable(four).value);
      ASSERT_EQ(hasher(six).value, hasher.portable(six).value);
    }
    ASSERT_EQ(hasher(key4{}).value, hasher.portable(key4{}).value);
    ASSERT_EQ(hasher(key6{}).value, hasher.portable(key6{}).value);
  }
  constexpr bucket_hasher constant{test::secret};
  constexpr key6 six{1, 2, 3, 4};
  constexpr bucket_hash early = constant(six);
  EXPECT_EQ(early.value, bucket_hasher{test::secret}(six).value);
}

// The two halves must be independent: keys that share a primary must not share a
// secondary more often than chance allows.
TEST(hash, HalvesAreIndependent) {
  constexpr std::uint64_t buckets = 64;
  const bucket_hasher hasher{test::secret};
  std::vector<std::uint32_t> pairs(buckets * buckets);
  constexpr std::uint64_t n = 1 << 20;
  for (std::uint64_t i = 0; i < n; ++i) {
    const bucket_hash h = hasher(test::key_maker<ipv4>::make(i));
    ++pairs[(h.value >> 32) * buckets >> 32 << 6 | (h.value & 0xffffffffu) * buckets >> 32];
  }
  double chi2 = 0;
  const double mean = static_cast<double>(n) / static_cast<double>(pairs.size());
  for (const std::uint32_t c : pairs) chi2 += (c - mean) * (c - mean) / mean;
  EXPECT_NEAR(chi2, 4095, 6 * std::sqrt(2 * 4095.0));
}

TEST(hash, EveryKeyBitChangesHalfTheHash) {
  const bucket_hasher hasher{test::secret};
  test::random_source random{11};
  const auto flip = [&](auto key, auto&& change, unsigned bits) {
    for (unsigned bit = 0; bit < bits; ++bit) {
      double changed = 0;
      constexpr int tries = 400;
      for (int t = 0; t < tries; ++t) {
        auto a = key(random);
        auto b = a;
        change(b, bit);
        changed += std::popcount(hasher(a).value ^ hasher(b).value);
      }
      EXPECT_NEAR(changed / tries, 32.0, 1.6) << "bit " << bit;
    }
  };
  flip(
      [](auto& r) {
        return key4{r(), r() & 0xffff};
      },
      [](key4& k, unsigned bit) {
        (bit < 64 ? k.tuple : k.vip_bits) ^= std::uint64_t{1} << (bit & 63);
      },
      80);
  flip(
      [](auto& r) {
        return key6{r(), r(), r() & 0xffffffff, r() & 0xffff};
      },
      [](key6& k, unsigned bit) {
        std::uint64_t& w = bit < 64    ? k.source_high
                           : bit < 128 ? k.source_low
                           : bit < 160 ? k.ports
                                       : k.vip_bits;
        w ^= std::uint64_t{1} << (bit < 128 ? bit & 63 : bit < 160 ? bit - 128 : bit - 160);
      },
      176);
}

// collisions() counts the pairs of keys in one (primary) bucket.
template <class Key>
std::uint64_t collisions(const std::vector<Key>& keys, const bucket_hasher& hasher,
                         std::uint64_t buckets) {
  std::vector<std::uint32_t> counts(buckets);
  std::uint64_t pairs = 0;
  for (const Key& k : keys) pairs += counts[primary_bucket(hasher(k), buckets)]++;
  return pairs;
}

// An attacker who knew one secret and chose flows that all meet in 4 of 100,000 buckets
// has gained nothing once the secret is another, not even if one bit of it is.
template <class Family>
void prepared_keys_scatter() {
  constexpr std::uint64_t buckets = 100'000;
  const bucket_hasher known{test::secret};
  std::vector<typename Family::key_type> chosen;
  for (std::uint64_t n = 0; chosen.size() < 400; ++n) {
    const auto key = test::key_maker<Family>::make(n);
    if (primary_bucket(known(key), buckets) < 4) chosen.push_back(key);
  }
  EXPECT_GT(collisions(chosen, known, buckets), 15'000u);  // 4 * 100 * 99 / 2
  // By chance: 400 * 399 / 2 / 100,000 = 0.8 pairs.
  for (unsigned bit = 0; bit < 128; ++bit) {
    auto other = test::secret;
    other[bit / 64] ^= std::uint64_t{1} << (bit % 64);
    EXPECT_LT(collisions(chosen, bucket_hasher{other}, buckets), 10u) << "secret bit " << bit;
  }
}
TEST(hash, PreparedKeysScatterUnderAnotherSecretIpv4) {
  prepared_keys_scatter<ipv4>();
}
TEST(hash, PreparedKeysScatterUnderAnotherSecretIpv6) {
  prepared_keys_scatter<ipv6>();
}

// The weakness of a linear hash: a difference between two keys that cancels once cancels
// always. Take pairs that collide fully in one half under one secret: the difference must
// not collide for other keys, nor for other secrets.
TEST(hash, DifferencesThatCollideOnceDoNotCollideAgain) {
  constexpr std::uint64_t buckets = 4096;
  const bucket_hasher known{test::secret};
  const bucket_hasher other{{42, 43}};
  test::random_source random{5};
  std::uint64_t again = 0;
  std::uint64_t elsewhere = 0;
  constexpr int pairs = 2000;
  for (int p = 0; p < pairs; ++p) {
    const key4 a{random(), 0xfffe};
    key4 b = a;
    do {
      b.tuple = random();
    } while (primary_bucket(known(a), buckets) != primary_bucket(known(b), buckets));
    const std::uint64_t difference = a.tuple ^ b.tuple;
    const key4 c{random(), 0xfffe};
    const key4 d{c.tuple ^ difference, 0xfffe};
    again += primary_bucket(known(c), buckets) == primary_bucket(known(d), buckets);
    elsewhere += primary_bucket(other(a), buckets) == primary_bucket(other(b), buckets);
  }
  EXPECT_LT(again, 10u);      // by chance 0.5
  EXPECT_LT(elsewhere, 10u);  // by chance 0.5
}

TEST(hash, BucketsAreInRangeAndTwo) {
  test::random_source random{3};
  for (const std::uint64_t count : {2ull, 3ull, 7ull, 1000ull, 312'500ull, 1ull << 32}) {
    for (int i = 0; i < 10'000; ++i) {
      const bucket_hash h{i == 0 ? 0 : i == 1 ? ~std::uint64_t{0} : random()};
      ASSERT_LT(primary_bucket(h, count), count);
      ASSERT_LT(secondary_bucket(h, count), count);
      ASSERT_NE(primary_bucket(h, count), secondary_bucket(h, count));
    }
  }
}

}  // namespace
}  // namespace sluice::connection
