// SPDX-License-Identifier: Apache-2.0
#include "controlplane/maglev/last_slots.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace sluice::maglev {
namespace {

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

// inverse_of() is by Euclid's algorithm.
std::uint32_t inverse_of(std::uint32_t value, std::uint32_t m) noexcept {
  std::int64_t before = 0, now = 1;  // now * value is `remainder` modulo m
  std::int64_t divisor = m, remainder = value;
  while (remainder > 1) {
    const std::int64_t times = divisor / remainder;
    divisor = std::exchange(remainder, divisor - times * remainder);
    before = std::exchange(now, before - times * now);
  }
  return static_cast<std::uint32_t>(now < 0 ? now + m : now);
}

// steps_to() in 32 bits: quotient estimates the product's multiple of m, one too low at most.
std::uint32_t steps_to(std::uint32_t slot, std::uint32_t position, multiplier by,
                       std::uint32_t m) noexcept {
  const std::uint32_t away = std::min(slot - position, slot - position + m);
  const auto times = static_cast<std::uint32_t>(std::uint64_t{away} * by.quotient >> 32);
  const std::uint32_t steps = away * by.factor - times * m;
  return std::min(steps, steps - m);
}

#ifdef __x86_64__
[[gnu::target("avx2")]] std::uint32_t fewest_steps_avx2(std::span<const std::uint32_t> slots,
                                                        std::uint32_t position, multiplier by,
                                                        std::uint32_t m) noexcept {
  const __m256i positions = _mm256_set1_epi32(static_cast<int>(position));
  const __m256i factors = _mm256_set1_epi32(static_cast<int>(by.factor));
  const __m256i quotients = _mm256_set1_epi32(static_cast<int>(by.quotient));
  const __m256i sizes = _mm256_set1_epi32(static_cast<int>(m));
  __m256i least = _mm256_set1_epi32(-1);
  std::size_t i = 0;
  for (; i + 8 <= slots.size(); i += 8) {
    const __m256i slot = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(slots.data() + i));
    __m256i away = _mm256_sub_epi32(slot, positions);
    away = _mm256_min_epu32(away, _mm256_add_epi32(away, sizes));
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(away, quotients), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(away, 32), quotients);
    const __m256i times = _mm256_blend_epi32(even, odd, 0xaa);
    const __m256i steps =
        _mm256_sub_epi32(_mm256_mullo_epi32(away, factors), _mm256_mullo_epi32(times, sizes));
    least = _mm256_min_epu32(least, _mm256_min_epu32(steps, _mm256_sub_epi32(steps, sizes)));
  }
  __m128i four = _mm_min_epu32(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
  four = _mm_min_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_min_epu32(four, _mm_shuffle_epi32(four, 0xb1));
  return std::min(static_cast<std::uint32_t>(_mm_cvtsi128_si32(four)),
                  fewest_steps_portable(slots.subspan(i), position, by, m));
}
#endif

}  // namespace

std::vector<multiplier> inverse_multipliers(std::span<const std::uint32_t> values,
                                            std::uint32_t m) {
  // Montgomery's trick: one inversion for all. out[i].factor is first the product of
  // values[0..i]; then, from the end, the inverse of that product is peeled off.
  std::vector<multiplier> out(values.size());
  std::uint64_t product = 1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    product = product * values[i] % m;
    out[i].factor = static_cast<std::uint32_t>(product);
  }
  std::uint64_t inverse = inverse_of(static_cast<std::uint32_t>(product), m);
  for (std::size_t i = values.size(); i-- > 0;) {
    const std::uint64_t factor = i == 0 ? inverse : inverse * out[i - 1].factor % m;
    inverse = inverse * values[i] % m;
    out[i] = {static_cast<std::uint32_t>(factor), static_cast<std::uint32_t>((factor << 32) / m)};
  }
  return out;
}

std::uint32_t fewest_steps_portable(std::span<const std::uint32_t> slots, std::uint32_t position,
                                    multiplier by, std::uint32_t m) noexcept {
  std::uint32_t least = none;
  for (const std::uint32_t slot : slots) least = std::min(least, steps_to(slot, position, by, m));
  return least;
}

std::uint32_t fewest_steps(std::span<const std::uint32_t> slots, std::uint32_t position,
                           multiplier by, std::uint32_t m) noexcept {
#ifdef __x86_64__
  static const bool wide = __builtin_cpu_supports("avx2") != 0;
  if (wide) return fewest_steps_avx2(slots, position, by, m);
#endif
  return fewest_steps_portable(slots, position, by, m);
}

}  // namespace sluice::maglev
