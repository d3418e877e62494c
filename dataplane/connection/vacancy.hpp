// SPDX-License-Identifier: Apache-2.0
// Which place of a bucket a newcomer may have: a free one, one whose connection has been idle
// for longer than its state allows, or one whose connection gives way to any newcomer. For two
// instruction sets, as the look-up.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/connection/bucket_probe.hpp"

namespace sluice::connection {

using abi::connection_state;

constexpr bool embryonic(connection_state s) noexcept {
  return s == connection_state::syn || s == connection_state::learned ||
         s == connection_state::udp_new;
}

// rank_of() grows with how gladly a connection is given up; 0: not for this newcomer. stale: it
// has been idle for more than a quarter of its timeout.
constexpr std::uint32_t rank_of(connection_state s, connection_state newcomer,
                                bool stale) noexcept {
  switch (s) {
    case connection_state::closed:
      return 5;
    case connection_state::syn:
    case connection_state::learned:
    case connection_state::udp_new:
      return 4;
    case connection_state::closing:
      return 3;
    case connection_state::udp:
      return stale || !embryonic(newcomer) ? 2 : 0;
    case connection_state::established:
      return !embryonic(newcomer) || (stale && newcomer == connection_state::learned) ? 1 : 0;
    default:  // a state that no version of ours writes: corrupted memory
      return 5;
  }
}

// What a place is to any newcomer: its rank, as far as that is the same for all.
inline constexpr std::uint32_t all_established = 0;  // of a bucket: nobody yields
inline constexpr std::uint32_t none_yields = 1;
inline constexpr std::uint32_t yielding_rank = 4;  // from this on: whoever comes
inline constexpr std::uint32_t expired_rank = 6;
inline constexpr std::uint32_t free_rank = 7;
static_assert(rank_of(connection_state::closing, connection_state::established, true) <
              yielding_rank);

constexpr std::uint32_t rank_for_any(connection_state s) noexcept {
  const std::uint32_t rank = rank_of(s, connection_state::syn, false);
  return rank >= yielding_rank                ? rank
         : s == connection_state::established ? all_established
                                              : none_yields;
}

// The states of who yields to any newcomer, and free: a bit for each.
inline constexpr unsigned yielding_states = [] {
  unsigned states = 1u << static_cast<unsigned>(connection_state::free);
  for (unsigned s = 1; s < abi::connection_state_count; ++s)
    if (rank_for_any(static_cast<connection_state>(s)) >= yielding_rank) states |= 1u << s;
  return states;
}();

struct vacancy {
  unsigned at;         // a place, of nobody in particular where none yields
  std::uint32_t rank;  // the best of the bucket's
};

// patience: seconds by state (8 of them, aligned to 32 bytes), -1 for free; now: the table's clock.
// vacancy_*() find the first free place, else the first expired one, else the closed or
// embryonic one that was seen longest ago. Among equals (a flood fills a bucket within a second)
// from place `turn` on: it changes with every call, or each newcomer would be the next to go.
template <class Family>
vacancy vacancy_scalar(const typename Family::bucket& b, std::uint16_t now,
                       const std::int32_t* patience, unsigned turn) noexcept {
  unsigned stale = 4;
  for (unsigned i = 0; i < 4; ++i) {
    const abi::connection_word w = b.entries[i].word;
    if (w.state() == connection_state::free) return {i, free_rank};
    if (stale == 4 && static_cast<std::uint16_t>(now - w.seen()) >
                          patience[static_cast<std::size_t>(w.state()) & 7u])
      stale = i;
  }
  if (stale < 4) return {stale, expired_rank};
  vacancy best{0, 0};
  std::uint32_t most = 0;
  for (unsigned n = 0; n < 4; ++n) {
    const unsigned i = (turn + n) % 4;
    const abi::connection_word w = b.entries[i].word;
    const std::uint32_t rank = rank_for_any(w.state());
    const std::uint32_t worth = rank << 16 | static_cast<std::uint16_t>(now - w.seen());
    if (n != 0 && worth <= most) continue;
    most = worth;
    best = {i, rank};
  }
  return best;
}

namespace detail {

inline constexpr unsigned rank_shift = 22;

// ranks_for_any are in the place that they have in a worth: rank | idle 16 bits | 6 bits that tell
// equals apart, by turn: 7 for who comes first, and the place itself.
struct alignas(32) eight {
  std::array<std::uint32_t, 8> of;
};
inline constexpr eight ranks_for_any = [] {
  eight ranks{};
  for (unsigned s = 0; s < 8; ++s)
    ranks.of[s] = rank_for_any(static_cast<connection_state>(s)) << rank_shift;
  return ranks;
}();
struct alignas(16) four {
  std::array<std::uint32_t, 4> of;
};
inline constexpr auto places_by_turn = [] {
  std::array<four, 4> all{};
  for (unsigned turn = 0; turn < 4; ++turn)
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned i = (turn + n) % 4;
      all[turn].of[i] = (7 - n) << 3 | i;
    }
  return all;
}();

// last_of() are an entry's last 16 bytes, which end with its word.
template <class Entry>
SLUICE_AVX2 inline __m128i last_of(const Entry& e) noexcept {
  static_assert(sizeof(Entry) % 16 == 0 && offsetof(Entry, word) == sizeof(Entry) - 8);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(&e + 1) - 1);
}
// upper_halves() of a bucket's four words, in order.
template <class Bucket>
SLUICE_AVX2 inline __m128i upper_halves(const Bucket& b) noexcept {
  const __m128i x = _mm_unpackhi_epi64(last_of(b.entries[0]), last_of(b.entries[1]));
  const __m128i y = _mm_unpackhi_epi64(last_of(b.entries[2]), last_of(b.entries[3]));
  return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(x), _mm_castsi128_ps(y), 0b11'01'11'01));
}
SLUICE_AVX2 inline __m256i table(const void* of_eight) noexcept {
  return _mm256_load_si256(static_cast<const __m256i*>(of_eight));
}
// by_state() is each state's number in a table of eight; the index's lowest three bits count.
SLUICE_AVX2 inline __m128i by_state(const void* of_eight, __m128i states) noexcept {
  return _mm256_castsi256_si128(
      _mm256_permutevar8x32_epi32(table(of_eight), _mm256_castsi128_si256(states)));
}
// idle() is how long ago each was seen. What is below the time in the words borrows nothing from
// it.
SLUICE_AVX2 inline __m128i idle(__m128i upper, std::uint16_t now) noexcept {
  constexpr unsigned below = abi::connection_word::time_shift - 32;
  const __m128i difference =
      _mm_sub_epi32(_mm_set1_epi32(now << below | ((1 << below) - 1)), upper);
  return _mm_srli_epi32(_mm_slli_epi32(difference, 16 - below), 16);
}
SLUICE_AVX2 inline std::uint32_t highest(__m128i of_four) noexcept {
  const __m128i two = _mm_max_epu32(of_four, _mm_unpackhi_epi64(of_four, of_four));
  const __m128i one = _mm_max_epu32(two, _mm_shuffle_epi32(two, 1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(one));
}

}  // namespace detail

template <class Family>
SLUICE_AVX2 inline vacancy vacancy_avx2(const typename Family::bucket& b, std::uint16_t now,
                                        const std::int32_t* patience, unsigned turn) noexcept {
  using abi::connection_word;
  const __m128i upper = detail::upper_halves(b);
  const __m128i states = _mm_srli_epi32(upper, connection_word::state_shift - 32);  // and spare
  const __m128i idle = detail::idle(upper, now);
  // Free places are never patient.
  const auto idle_places = static_cast<unsigned>(
      _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(idle, detail::by_state(patience, states)))));
  if (idle_places != 0) {
    const auto free = static_cast<unsigned>(_mm_movemask_ps(_mm_castsi128_ps(
        _mm_cmpeq_epi32(_mm_and_si128(states, _mm_set1_epi32(0xf)), _mm_setzero_si128()))));
    if (free != 0) return {static_cast<unsigned>(__builtin_ctz(free)), free_rank};
    return {static_cast<unsigned>(__builtin_ctz(idle_places)), expired_rank};
  }
  const __m128i ranks = detail::by_state(detail::ranks_for_any.of.data(), states);
  if (_mm_testz_si128(ranks, ranks) != 0) return {0, all_established};
  const __m128i worths = _mm_or_si128(
      _mm_or_si128(ranks, _mm_slli_epi32(idle, 6)),
      _mm_load_si128(reinterpret_cast<const __m128i*>(detail::places_by_turn[turn % 4].of.data())));
  const std::uint32_t best = detail::highest(worths);
  return {best & 3u, best >> detail::rank_shift};
}

}  // namespace sluice::connection
