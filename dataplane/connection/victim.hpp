// SPDX-License-Identifier: Apache-2.0
// Who gives way to a newcomer when its two buckets are full of connections that have not
// expired; flow_map_insert.hpp says in which order, and why. For two instruction sets.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstdint>

#include "dataplane/connection/vacancy.hpp"

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

// From this rank on a connection is given up for any newcomer.
inline constexpr std::uint32_t yielding_rank = 4;
static_assert(rank_of(connection_state::closing, connection_state::established, true) <
              yielding_rank);

inline constexpr unsigned nobody = 8;

// A victim_function returns the place of who gives way: 0 to 3 in the first bucket, 4 to 7 in the
// second, or nobody. By rank, then by how long they have been idle. Among equals (a flood fills a
// bucket within a second) those of the first bucket, from place `turn` on: it changes with
// every call, or each newcomer would be the next to go. All states are below 8.
template <class Family>
using victim_function = unsigned (*)(const typename Family::bucket& first,
                                     const typename Family::bucket& second,
                                     connection_state newcomer, std::uint16_t now,
                                     const std::uint32_t* timeouts, unsigned turn) noexcept;

template <class Family>
unsigned victim_scalar(const typename Family::bucket& first, const typename Family::bucket& second,
                       connection_state newcomer, std::uint16_t now, const std::uint32_t* timeouts,
                       unsigned turn) noexcept {
  unsigned best = nobody;
  std::uint32_t most = 0;
  for (unsigned b = 0; b < 2; ++b)
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned i = (turn + n) % 4;
      const abi::connection_word w = (b == 0 ? first : second).entries[i].word;
      const auto idle = static_cast<std::uint16_t>(now - w.seen());
      const bool stale = idle > timeouts[static_cast<std::size_t>(w.state()) & 7u] / 4;
      const std::uint32_t rank = rank_of(w.state(), newcomer, stale);
      if (rank == 0 || (rank << 16 | idle) <= most) continue;
      most = rank << 16 | idle;
      best = b * 4 + i;
    }
  return best;
}

namespace detail {

// By newcomer: the ranks of states that are not stale, and of those that are.
struct alignas(32) ranks {
  std::array<std::uint32_t, 8> live;
  std::array<std::uint32_t, 8> stale;
};
inline constexpr auto ranks_by_newcomer = [] {
  std::array<ranks, 8> all{};
  for (unsigned n = 0; n < 8; ++n)
    for (unsigned s = 0; s < 8; ++s) {
      const auto state = static_cast<connection_state>(s);
      const auto newcomer = static_cast<connection_state>(n);
      all[n].live[s] = rank_of(state, newcomer, false);
      all[n].stale[s] = rank_of(state, newcomer, true);
    }
  return all;
}();

// What is added to tell equals apart, by turn: 7 for who comes first; and the place itself.
struct alignas(32) order {
  std::array<std::uint64_t, 4> first;
  std::array<std::uint64_t, 4> second;
};
inline constexpr auto order_by_turn = [] {
  std::array<order, 4> all{};
  for (unsigned turn = 0; turn < 4; ++turn)
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned i = (turn + n) % 4;
      all[turn].first[i] = (7 - n) << 3 | i;
      all[turn].second[i] = (3 - n) << 3 | (4 + i);
    }
  return all;
}();

// worths() are 0 for who stays, else rank 16 bits | idle 16 bits | 6 bits for `order`.
inline constexpr unsigned rank_shift = 22;
SLUICE_AVX2 inline __m256i worths(__m256i words, const ranks& by_state, std::uint16_t now,
                                  const std::uint32_t* timeouts,
                                  const std::uint64_t* order) noexcept {
  using abi::connection_word;
  const __m256i low16 = _mm256_set1_epi64x(0xffff);
  const __m256i states = _mm256_and_si256(_mm256_srli_epi64(words, connection_word::state_shift),
                                          _mm256_set1_epi64x(0xf));
  const __m256i seen = _mm256_srli_epi64(words, connection_word::time_shift);
  const __m256i idle = _mm256_and_si256(_mm256_sub_epi64(_mm256_set1_epi64x(now), seen), low16);
  const auto by = [](const std::uint32_t* table) {
    return reinterpret_cast<const __m256i*>(table);
  };
  const __m256i limit = _mm256_srli_epi64(
      _mm256_and_si256(_mm256_permutevar8x32_epi32(_mm256_load_si256(by(timeouts)), states), low16),
      2);
  const __m256i stale = _mm256_cmpgt_epi64(idle, limit);
  const __m256i rank = _mm256_and_si256(
      _mm256_blendv_epi8(
          _mm256_permutevar8x32_epi32(_mm256_load_si256(by(by_state.live.data())), states),
          _mm256_permutevar8x32_epi32(_mm256_load_si256(by(by_state.stale.data())), states), stale),
      low16);
  const __m256i stays = _mm256_cmpeq_epi64(rank, _mm256_setzero_si256());
  const __m256i worth = _mm256_or_si256(
      _mm256_or_si256(_mm256_slli_epi64(rank, rank_shift), _mm256_slli_epi64(idle, 6)),
      _mm256_load_si256(reinterpret_cast<const __m256i*>(order)));
  return _mm256_andnot_si256(stays, worth);
}

}  // namespace detail

template <class Family>
SLUICE_AVX2 unsigned victim_avx2(const typename Family::bucket& first,
                                 const typename Family::bucket& second, connection_state newcomer,
                                 std::uint16_t now, const std::uint32_t* timeouts,
                                 unsigned turn) noexcept {
  const detail::ranks& by_state =
      detail::ranks_by_newcomer[static_cast<std::size_t>(newcomer) & 7u];
  const detail::order& o = detail::order_by_turn[turn % 4];
  // Below 2^31, so that the maximum of 32-bit lanes is that of 64.
  const __m256i both =
      _mm256_max_epu32(detail::worths(words_of(first), by_state, now, timeouts, o.first.data()),
                       detail::worths(words_of(second), by_state, now, timeouts, o.second.data()));
  const __m128i two =
      _mm_max_epu32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  const __m128i one = _mm_max_epu32(two, _mm_unpackhi_epi64(two, two));
  const auto best = static_cast<std::uint32_t>(_mm_cvtsi128_si32(one));
  return best == 0 ? nobody : best & 7u;
}

// An own_victim_function returns the place in one bucket of who gives way to any newcomer: closed,
// else the embryonic one that was seen longest ago; 4: nobody. `turn` as above.
template <class Family>
using own_victim_function = unsigned (*)(const typename Family::bucket& b, std::uint16_t now,
                                         const std::uint32_t* timeouts, unsigned turn) noexcept;

// The states of who may be an own victim, and free: a bit for each.
inline constexpr unsigned yielding_states = [] {
  unsigned states = 1u << static_cast<unsigned>(connection_state::free);
  for (unsigned s = 1; s < abi::connection_state_count; ++s)
    if (rank_of(static_cast<connection_state>(s), connection_state::syn, false) >= yielding_rank)
      states |= 1u << s;
  return states;
}();

template <class Family>
unsigned own_victim_scalar(const typename Family::bucket& b, std::uint16_t now,
                           const std::uint32_t* /*timeouts*/, unsigned turn) noexcept {
  unsigned best = 4;
  std::uint32_t most = 0;
  for (unsigned n = 0; n < 4; ++n) {
    const unsigned i = (turn + n) % 4;
    const abi::connection_word w = b.entries[i].word;
    const std::uint32_t rank = rank_of(w.state(), connection_state::syn, false);
    const std::uint32_t worth = rank << 16 | static_cast<std::uint16_t>(now - w.seen());
    if (rank < yielding_rank || worth <= most) continue;
    most = worth;
    best = i;
  }
  return best;
}

template <class Family>
SLUICE_AVX2 unsigned own_victim_avx2(const typename Family::bucket& b, std::uint16_t now,
                                     const std::uint32_t* timeouts, unsigned turn) noexcept {
  const __m256i all = detail::worths(
      words_of(b), detail::ranks_by_newcomer[static_cast<std::size_t>(connection_state::syn)], now,
      timeouts, detail::order_by_turn[turn % 4].first.data());
  const __m128i two = _mm_max_epu32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  const __m128i one = _mm_max_epu32(two, _mm_unpackhi_epi64(two, two));
  const auto best = static_cast<std::uint32_t>(_mm_cvtsi128_si32(one));
  return best >= yielding_rank << detail::rank_shift ? best & 7u : 4;
}

template <class Family>
own_victim_function<Family> own_victim_finder(instruction_set s) noexcept {
  return s == instruction_set::scalar ? own_victim_scalar<Family> : own_victim_avx2<Family>;
}

template <class Family>
victim_function<Family> victim_finder(instruction_set s) noexcept {
  return s == instruction_set::scalar ? victim_scalar<Family> : victim_avx2<Family>;
}

}  // namespace sluice::connection
