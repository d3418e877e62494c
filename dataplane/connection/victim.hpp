// SPDX-License-Identifier: Apache-2.0
// Who gives way to a newcomer when its two buckets are full of connections that have not
// expired; flow_map_insert.hpp says in which order, and why. For two instruction sets.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstdint>

#include "dataplane/connection/vacancy.hpp"

namespace sluice::connection {

inline constexpr unsigned nobody = 8;

// A victim_function returns the place of who gives way: 0 to 3 in the first bucket, 4 to 7 in the
// second, or nobody. By rank, then by how long they have been idle. Among equals those of the first
// bucket, from place `turn` on. patience, turn: as for vacancy_*().
template <class Family>
using victim_function = unsigned (*)(const typename Family::bucket& first,
                                     const typename Family::bucket& second,
                                     connection_state newcomer, std::uint16_t now,
                                     const std::int32_t* patience, unsigned turn) noexcept;

template <class Family>
unsigned victim_scalar(const typename Family::bucket& first, const typename Family::bucket& second,
                       connection_state newcomer, std::uint16_t now, const std::int32_t* patience,
                       unsigned turn) noexcept {
  unsigned best = nobody;
  std::uint32_t most = 0;
  for (unsigned b = 0; b < 2; ++b)
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned i = (turn + n) % 4;
      const abi::connection_word w = (b == 0 ? first : second).entries[i].word;
      const auto idle = static_cast<std::uint16_t>(now - w.seen());
      const bool stale = idle > patience[static_cast<std::size_t>(w.state()) & 7u] / 4;
      const std::uint32_t rank = rank_of(w.state(), newcomer, stale);
      if (rank == 0 || (rank << 16 | idle) <= most) continue;
      most = rank << 16 | idle;
      best = b * 4 + i;
    }
  return best;
}

namespace detail {

// By newcomer: the ranks of states that are not stale, and of those that are, as in a worth.
struct ranks {
  eight live;
  eight stale;
};
inline constexpr auto ranks_by_newcomer = [] {
  std::array<ranks, 8> all{};
  for (unsigned n = 0; n < 8; ++n)
    for (unsigned s = 0; s < 8; ++s) {
      const auto state = static_cast<connection_state>(s);
      const auto newcomer = static_cast<connection_state>(n);
      all[n].live.of[s] = rank_of(state, newcomer, false) << rank_shift;
      all[n].stale.of[s] = rank_of(state, newcomer, true) << rank_shift;
    }
  return all;
}();

// As places_by_turn, of two buckets.
inline constexpr auto eight_places_by_turn = [] {
  std::array<eight, 4> all{};
  for (unsigned turn = 0; turn < 4; ++turn)
    for (unsigned n = 0; n < 4; ++n) {
      const unsigned i = (turn + n) % 4;
      all[turn].of[i] = (7 - n) << 3 | i;
      all[turn].of[4 + i] = (3 - n) << 3 | (4 + i);
    }
  return all;
}();

}  // namespace detail

template <class Family>
SLUICE_AVX2 unsigned victim_avx2(const typename Family::bucket& first,
                                 const typename Family::bucket& second, connection_state newcomer,
                                 std::uint16_t now, const std::int32_t* patience,
                                 unsigned turn) noexcept {
  using abi::connection_word;
  const detail::ranks& ranks = detail::ranks_by_newcomer[static_cast<std::size_t>(newcomer) & 7u];
  const __m256i upper = _mm256_set_m128i(detail::upper_halves(second), detail::upper_halves(first));
  const __m256i states = _mm256_srli_epi32(upper, connection_word::state_shift - 32);
  const __m256i idle =
      _mm256_and_si256(_mm256_sub_epi32(_mm256_set1_epi32(now),
                                        _mm256_srli_epi32(upper, connection_word::time_shift - 32)),
                       _mm256_set1_epi32(0xffff));
  const __m256i limit =
      _mm256_srli_epi32(_mm256_permutevar8x32_epi32(detail::table(patience), states), 2);
  const __m256i rank =
      _mm256_blendv_epi8(_mm256_permutevar8x32_epi32(detail::table(ranks.live.of.data()), states),
                         _mm256_permutevar8x32_epi32(detail::table(ranks.stale.of.data()), states),
                         _mm256_cmpgt_epi32(idle, limit));
  const __m256i worths = _mm256_andnot_si256(
      _mm256_cmpeq_epi32(rank, _mm256_setzero_si256()),
      _mm256_or_si256(_mm256_or_si256(rank, _mm256_slli_epi32(idle, 6)),
                      detail::table(detail::eight_places_by_turn[turn % 4].of.data())));
  const __m128i four =
      _mm_max_epu32(_mm256_castsi256_si128(worths), _mm256_extracti128_si256(worths, 1));
  const std::uint32_t best = detail::highest(four);
  return best == 0 ? nobody : best & 7u;
}

template <class Family>
victim_function<Family> victim_finder(instruction_set s) noexcept {
  return s == instruction_set::scalar ? victim_scalar<Family> : victim_avx2<Family>;
}

}  // namespace sluice::connection
