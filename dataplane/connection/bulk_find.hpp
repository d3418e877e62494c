// SPDX-License-Identifier: Apache-2.0
// Where a key's buckets are, and the look-up of many keys at once.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dataplane/connection/bucket_probe.hpp"

namespace sluice::connection {

using abi::connection_word;

// handle: an entry's word, or null. Read it freely; write it with flow_map::store() only.
using handle = connection_word*;

// Multiply-high range reduction (Lemire): any number of buckets up to 2^32, no division.
constexpr std::uint64_t primary_bucket(bucket_hash h, std::uint64_t count) noexcept {
  return (h.value >> 32) * count >> 32;
}
constexpr std::uint64_t secondary_bucket(bucket_hash h, std::uint64_t count) noexcept {
  const std::uint64_t second = (h.value & 0xffffffffu) * count >> 32;
  if (second != primary_bucket(h, count)) return second;
  return second + 1 == count ? 0 : second + 1;
}

// digit_mask is what is a bucket's of each word's spare bits.
inline constexpr std::uint64_t digit_mask = std::uint64_t{7} << connection_word::spare_shift;

// overflowed() tells whether any entry that belongs here is in its secondary bucket.
template <class Bucket>
bool overflowed(const Bucket& b) noexcept {
  return (b.entries[0].word.value & digit_mask) != 0;
}

// free_place() returns the number of a free place, 4 if there is none.
template <class Bucket>
unsigned free_place(const Bucket& b) noexcept {
  unsigned i = 0;
  while (i < 4 && b.entries[i].word.state() != abi::connection_state::free) ++i;
  return i;
}

// twice() is states (a bit for each) as any_in() wants them: the lowest of the spare bits is looked
// at, too.
constexpr unsigned twice(unsigned states) noexcept {
  return states | states << 16;
}
inline constexpr unsigned every_state = 0xffff;
inline constexpr unsigned only_free = 1u << static_cast<unsigned>(abi::connection_state::free);

// any_in() is 1 if an entry of the bucket has one of the states, else 0.
template <class Bucket>
[[gnu::always_inline]] inline unsigned any_in(const Bucket& b, unsigned states_twice) noexcept {
  const auto of = [&](unsigned i) {
    return states_twice >> (b.entries[i].word.value >> connection_word::state_shift & 0x1f);
  };
  return (of(0) | of(1) | of(2) | of(3)) & 1u;
}

// companions: beside the table, a row of cache lines and one of IPv6 addresses, with one for each
// backend row. The look-up fetches those of the connection it finds, which its caller needs next
// (the addresses for IPv6 connections: others seldom go through IPv6 tunnels).
struct companions {
  const std::byte* lines;
  const std::byte* addresses;

  template <class Family>
  [[gnu::always_inline]] void prefetch(connection_word w) const noexcept {
    const std::uint64_t row = w.backend().index();
    __builtin_prefetch(lines + row * cache_line);
    if constexpr (std::is_same_v<Family, ipv6>) __builtin_prefetch(addresses + row * 16);
  }
};

// first_look: of up to 64 keys, a bit for each that is not in its primary bucket, and for those
// of them that may be in their secondary.
struct first_look {
  std::uint64_t missed;
  std::uint64_t again;
};

// The look-up of up to 64 keys in two steps. The first reads one bucket for each and does not
// branch on what it finds. The second turns to those that may be in their secondary, whose fetch
// the first has begun, and returns which of them are: between the two, its caller has better to do.
template <class Family>
struct bulk_functions {
  using bucket = typename Family::bucket;
  using key_type = typename Family::key_type;
  first_look (*first)(bucket*, std::uint64_t, const key_type*, const bucket_hash*, bucket* const*,
                      handle*, companions, unsigned, unsigned) noexcept;
  std::uint64_t (*second)(bucket*, std::uint64_t, const key_type*, const bucket_hash*, handle*,
                          companions, std::uint64_t) noexcept;
};

// find_first() looks n <= 64 keys up in their primary buckets. For misses that insert() may want
// to put into their secondary, it fetches that: where no place of the primary has one of the states
// `enough` (twice()).
template <class Probe, class Family>
[[gnu::always_inline]] inline first_look find_first(
    typename Family::bucket* buckets, std::uint64_t count, const typename Family::key_type* keys,
    const bucket_hash* hashes, typename Family::bucket* const* firsts, handle* found,
    companions beside, unsigned n, unsigned enough) noexcept {
  std::uint64_t missed = 0;
  for (unsigned i = 0; i < n; ++i) {
    auto& first = *firsts[i];
    // By arithmetic: written as a condition, gcc makes it a branch that one packet in six
    // mispredicts at 80% load.
    const sighting s = Probe::look(first, keys[i]);
    found[i] = &first.entries[s.at].word;
    beside.prefetch<Family>(first.entries[s.at].word);
    missed |= std::uint64_t{s.miss} << i;
  }
  std::uint64_t again = 0;
  for (std::uint64_t rest = missed; rest != 0; rest &= rest - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(rest));
    auto& first = *firsts[i];
    if (Family::resembles(found[i], keys[i])) [[unlikely]] {  // the same of another VIP
      if (const unsigned at = Probe::match(first, keys[i]); at != Family::per_bucket) {
        found[i] = &first.entries[at].word;
        missed &= ~(std::uint64_t{1} << i);
        continue;
      }
    }
    found[i] = nullptr;
    const bool look = overflowed(first);
    again |= std::uint64_t{look} << i;
    const bucket_hash hash = hashes[i];
    if (enough == twice(every_state)) {
      // Whether to look on nobody can foretell: the first bucket, which is there, is fetched
      // instead. By arithmetic; gcc makes a branch of anything else.
      const auto one = reinterpret_cast<std::uintptr_t>(&first);
      const auto other = reinterpret_cast<std::uintptr_t>(buckets + secondary_bucket(hash, count));
      Family::prefetch(reinterpret_cast<const typename Family::bucket*>(
          one ^ ((one ^ other) & (std::uintptr_t{0} - unsigned{look}))));
    } else if (look || any_in(first, enough) == 0) {
      Family::prefetch(buckets + secondary_bucket(hash, count));
    }
  }
  return {missed, again};
}

// find_second() looks in the secondary buckets of the keys that `again` names.
template <class Probe, class Family>
[[gnu::always_inline]] inline std::uint64_t find_second(
    typename Family::bucket* buckets, std::uint64_t count, const typename Family::key_type* keys,
    const bucket_hash* hashes, handle* found, companions beside, std::uint64_t again) noexcept {
  std::uint64_t there = 0;
  for (; again != 0; again &= again - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(again));
    auto& second = buckets[secondary_bucket(hashes[i], count)];
    const unsigned at = Probe::match(second, keys[i]);
    if (at == Family::per_bucket) continue;
    found[i] = &second.entries[at & 3].word;
    there |= std::uint64_t{1} << i;
    beside.prefetch<Family>(*found[i]);
  }
  return there;
}

#define SLUICE_BULK_FIND(name, attributes, probe)                                               \
  template <class Family>                                                                       \
  attributes first_look name##_first(typename Family::bucket* buckets, std::uint64_t count,     \
                                     const typename Family::key_type* keys,                     \
                                     const bucket_hash* hashes,                                 \
                                     typename Family::bucket* const* firsts, handle* found,     \
                                     companions beside, unsigned n, unsigned enough) noexcept { \
    return find_first<probe, Family>(buckets, count, keys, hashes, firsts, found, beside, n,    \
                                     enough);                                                   \
  }                                                                                             \
  template <class Family>                                                                       \
  attributes std::uint64_t name##_second(typename Family::bucket* buckets, std::uint64_t count, \
                                         const typename Family::key_type* keys,                 \
                                         const bucket_hash* hashes, handle* found,              \
                                         companions beside, std::uint64_t again) noexcept {     \
    return find_second<probe, Family>(buckets, count, keys, hashes, found, beside, again);      \
  }
SLUICE_BULK_FIND(find_scalar, , scalar_probe)
SLUICE_BULK_FIND(find_avx2, SLUICE_AVX2, avx2_probe)
SLUICE_BULK_FIND(find_avx512, SLUICE_AVX512, avx512_probe)
#undef SLUICE_BULK_FIND

template <class Family>
bulk_functions<Family> bulk_find(instruction_set s) noexcept {
  switch (s) {
    case instruction_set::avx512:
      return {find_avx512_first<Family>, find_avx512_second<Family>};
    case instruction_set::avx2:
      return {find_avx2_first<Family>, find_avx2_second<Family>};
    default:
      return {find_scalar_first<Family>, find_scalar_second<Family>};
  }
}

}  // namespace sluice::connection
