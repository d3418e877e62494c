// SPDX-License-Identifier: Apache-2.0
// Is there room in a bucket: a free place, or one whose connection has been idle for longer
// than its state allows. For two instruction sets, as the look-up.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "dataplane/connection/bucket_probe.hpp"

namespace sluice::connection {

struct vacancy {
  unsigned at;           // the first free place, else the first expired one, else 4
  bool all_established;  // of a bucket without either
};

// timeouts: seconds by state (8 of them, aligned to 32 bytes); now: the table's clock.
template <class Family>
using vacancy_function = vacancy (*)(const typename Family::bucket&, std::uint16_t now,
                                     const std::uint32_t* timeouts) noexcept;

template <class Family>
vacancy vacancy_scalar(const typename Family::bucket& b, std::uint16_t now,
                       const std::uint32_t* timeouts) noexcept {
  unsigned stale = 4;
  bool established = true;
  for (unsigned i = 0; i < 4; ++i) {
    const abi::connection_word w = b.entries[i].word;
    if (w.state() == abi::connection_state::free) return {i, false};
    if (stale == 4 && static_cast<std::uint16_t>(now - w.seen()) >
                          timeouts[static_cast<std::size_t>(w.state()) & 7u])
      stale = i;
    established &= w.state() == abi::connection_state::established;
  }
  return {stale, established && stale == 4};
}

// words_of() are a bucket's four words in order.
SLUICE_AVX2 inline __m256i words_of(const ipv4::bucket& b) noexcept {
  const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i*>(b.entries));
  const __m256i y = _mm256_load_si256(reinterpret_cast<const __m256i*>(b.entries + 2));
  return _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(x, y), 0b11'01'10'00);
}
SLUICE_AVX2 inline __m256i words_of(const ipv6::bucket& b) noexcept {
  const auto word = [&b](unsigned i) { return static_cast<long long>(b.entries[i].word.value); };
  return _mm256_set_epi64x(word(3), word(2), word(1), word(0));
}

template <class Family>
SLUICE_AVX2 vacancy vacancy_avx2(const typename Family::bucket& b, std::uint16_t now,
                                 const std::uint32_t* timeouts) noexcept {
  using abi::connection_word;
  const __m256i words = words_of(b);
  const __m256i states = _mm256_and_si256(_mm256_srli_epi64(words, connection_word::state_shift),
                                          _mm256_set1_epi64x(0xf));
  const auto free = static_cast<unsigned>(
      _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(states, _mm256_setzero_si256()))));
  if (free != 0) return {static_cast<unsigned>(__builtin_ctz(free)), false};
  const __m256i seen = _mm256_srli_epi64(words, connection_word::time_shift);
  const __m256i idle =
      _mm256_and_si256(_mm256_sub_epi64(_mm256_set1_epi64x(now), seen), _mm256_set1_epi64x(0xffff));
  // The upper half of each lane has state 0, whose timeout is not wanted.
  const __m256i allowed =
      _mm256_and_si256(_mm256_permutevar8x32_epi32(
                           _mm256_load_si256(reinterpret_cast<const __m256i*>(timeouts)), states),
                       _mm256_set1_epi64x(0xffff));
  const auto stale = static_cast<unsigned>(
      _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(idle, allowed))));
  const auto live = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(
      states, _mm256_set1_epi64x(static_cast<long long>(abi::connection_state::established))))));
  return {static_cast<unsigned>(__builtin_ctz(stale | 1u << 4)), stale == 0 && live == 0xf};
}

template <class Family>
vacancy_function<Family> vacancy_finder(instruction_set s) noexcept {
  return s == instruction_set::scalar ? vacancy_scalar<Family> : vacancy_avx2<Family>;
}

}  // namespace sluice::connection
