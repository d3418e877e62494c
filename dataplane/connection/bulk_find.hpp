// SPDX-License-Identifier: Apache-2.0
// Where a key's buckets are, and the look-up of many keys at once.
#pragma once

#include <cstdint>

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

// overflowed() tells whether any entry that belongs here is in its secondary bucket.
template <class Bucket>
bool overflowed(const Bucket& b) noexcept {
  return (b.entries[0].word.value & connection_word::spare_mask) != 0;
}

// free_place() returns the number of a free place, 4 if there is none.
template <class Bucket>
unsigned free_place(const Bucket& b) noexcept {
  unsigned i = 0;
  while (i < 4 && b.entries[i].word.state() != abi::connection_state::free) ++i;
  return i;
}

// companions: beside the table, a row of cache lines and one of half lines, with one for each
// backend row. The look-up fetches those of the connection it finds, which its caller needs next.
struct companions {
  const std::byte* lines;
  const std::byte* halves;
  std::uint64_t mask;  // of the backend row's number

  [[gnu::always_inline]] void prefetch(connection_word w) const noexcept {
    const std::uint64_t row = w.value >> connection_word::backend_shift & mask;
    __builtin_prefetch(lines + row * cache_line);
    __builtin_prefetch(halves + row * (cache_line / 2), 1);
  }
};

template <class Family>
using find_chunk_function = void (*)(typename Family::bucket*, std::uint64_t,
                                     const typename Family::key_type*, const bucket_hash*,
                                     typename Family::bucket* const*, handle*, companions,
                                     unsigned) noexcept;

// find_chunk() looks n <= 64 keys up. The first pass reads one bucket for each and does
// not branch on what it finds; the second turns to the misses whose primary bucket has
// overflowed. For misses that insert() may want to put into their secondary, it fetches it.
template <class Probe, class Family>
[[gnu::always_inline]] inline void find_chunk(typename Family::bucket* buckets, std::uint64_t count,
                                              const typename Family::key_type* keys,
                                              const bucket_hash* hashes,
                                              typename Family::bucket* const* firsts, handle* found,
                                              companions beside, unsigned n) noexcept {
  std::uint64_t missed = 0;
  for (unsigned i = 0; i < n; ++i) {
    auto& first = *firsts[i];
    // By arithmetic: written as a condition, gcc makes it a branch that one packet in six
    // mispredicts at 80% load.
    const sighting s = Probe::look(first, keys[i]);
    found[i] = &first.entries[s.at].word;
    beside.prefetch(first.entries[s.at].word);
    missed |= std::uint64_t{s.miss} << i;
  }
  std::uint64_t again = 0;
  for (std::uint64_t rest = missed; rest != 0; rest &= rest - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(rest));
    auto& first = *firsts[i];
    if (Family::resembles(found[i], keys[i])) [[unlikely]] {  // the same of another VIP
      if (const unsigned at = Probe::match(first, keys[i]); at != Family::per_bucket) {
        found[i] = &first.entries[at].word;
        continue;
      }
    }
    found[i] = nullptr;
    const bool look = overflowed(first);
    again |= std::uint64_t{look} << i;
    if (look || free_place(first) == Family::per_bucket)
      Family::prefetch(buckets + secondary_bucket(hashes[i], count));
  }
  for (; again != 0; again &= again - 1) {
    const auto i = static_cast<unsigned>(__builtin_ctzll(again));
    auto& second = buckets[secondary_bucket(hashes[i], count)];
    const unsigned at = Probe::match(second, keys[i]);
    if (at == Family::per_bucket) continue;
    found[i] = &second.entries[at & 3].word;
    beside.prefetch(*found[i]);
  }
}

#define SLUICE_FIND_CHUNK(name, attributes, probe)                                               \
  template <class Family>                                                                        \
  attributes void name(typename Family::bucket* buckets, std::uint64_t count,                    \
                       const typename Family::key_type* keys, const bucket_hash* hashes,         \
                       typename Family::bucket* const* firsts, handle* found, companions beside, \
                       unsigned n) noexcept {                                                    \
    find_chunk<probe, Family>(buckets, count, keys, hashes, firsts, found, beside, n);           \
  }
SLUICE_FIND_CHUNK(find_chunk_scalar, , scalar_probe)
SLUICE_FIND_CHUNK(find_chunk_avx2, SLUICE_AVX2, avx2_probe)
SLUICE_FIND_CHUNK(find_chunk_avx512, SLUICE_AVX512, avx512_probe)
#undef SLUICE_FIND_CHUNK

template <class Family>
find_chunk_function<Family> bulk_find(instruction_set s) noexcept {
  switch (s) {
    case instruction_set::avx512:
      return find_chunk_avx512<Family>;
    case instruction_set::avx2:
      return find_chunk_avx2<Family>;
    default:
      return find_chunk_scalar<Family>;
  }
}

}  // namespace sluice::connection
