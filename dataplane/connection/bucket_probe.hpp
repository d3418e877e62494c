// SPDX-License-Identifier: Apache-2.0
// The two kinds of bucket and how a key is looked for in one: without branches, as the
// place of a match cannot be predicted. Three implementations for three instruction sets;
// which one the processor can run is asked once (best_instruction_set()).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/bucket_hash.hpp"

namespace sluice::connection {

// ipv4: four entries in one cache line.
struct ipv4 {
  using key_type = key4;
  using entry = abi::connection_entry4;
  static constexpr unsigned per_bucket = abi::entries4_per_bucket;
  struct alignas(cache_line) bucket {
    entry entries[per_bucket];
  };

  [[gnu::always_inline]] static void prefetch(const bucket* b) noexcept { __builtin_prefetch(b); }
  static key4 key_of(const entry& e) noexcept {
    std::uint64_t tuple;
    std::memcpy(&tuple, &e.source, 8);
    return {tuple, e.word.value & abi::connection_word::vip_mask};
  }
  static void set_key(entry& e, const key4& k) noexcept { std::memcpy(&e.source, &k.tuple, 8); }
  // resembles() tells whether look() could have taken an entry, given by its word, for the key.
  static bool resembles(const abi::connection_word* word, const key4& k) noexcept {
    std::uint64_t tuple;
    std::memcpy(&tuple, word - 1, 8);
    return tuple == k.tuple;
  }
};

// ipv6: four entries in two cache lines.
struct ipv6 {
  using key_type = key6;
  using entry = abi::connection_entry6;
  static constexpr unsigned per_bucket = abi::entries6_per_bucket;
  struct alignas(cache_line) bucket {
    entry entries[per_bucket];
  };

  [[gnu::always_inline]] static void prefetch(const bucket* b) noexcept {
    __builtin_prefetch(b);
    __builtin_prefetch(reinterpret_cast<const std::byte*>(b) + cache_line);
  }
  static key6 key_of(const entry& e) noexcept {
    std::uint64_t ports;
    std::memcpy(&ports, &e.source_port, 8);
    return {e.source_high, e.source_low, ports, e.word.value & abi::connection_word::vip_mask};
  }
  static void set_key(entry& e, const key6& k) noexcept {
    e.source_high = k.source_high;
    e.source_low = k.source_low;
    std::memcpy(&e.source_port, &k.ports, 8);
  }
  static bool resembles(const abi::connection_word* word, const key6& k) noexcept {
    std::uint64_t before[3];
    std::memcpy(before, word - 3, sizeof before);
    return before[0] == k.source_high && before[2] == k.ports;
  }
};

static_assert(sizeof(ipv4::bucket) == cache_line && sizeof(ipv6::bucket) == 2 * cache_line);
static_assert(ipv4::per_bucket == 4 && ipv6::per_bucket == 4);

// sighting: where a key was seen in a bucket.
struct sighting {
  unsigned at;         // 0 to 3, whatever `miss` says
  std::uint64_t miss;  // 0 or 1
};

namespace detail {

// place_of() is the lowest set bit of four, 4 if there is none: a table in a word.
constexpr unsigned place_of(unsigned four) noexcept {
  return static_cast<unsigned>(0x0102010301020104u >> (four * 4)) & 7u;
}
// The same for two pairs of which the middle bits have changed places (0 2 1 3).
constexpr unsigned place_of_0213(unsigned four) noexcept {
  return static_cast<unsigned>(0x0101020301010204u >> (four * 4)) & 7u;
}

// verified() looks at what the vector compare has left out. Branch-free, as the place is.
inline sighting verified(const ipv4::bucket& b, const key4& k, unsigned at) noexcept {
  const std::uint64_t other =
      ((b.entries[at & 3].word.value ^ k.vip_bits) & abi::connection_word::vip_mask) | (at & 4);
  return {at & 3, (other + 0xffff) >> 16};
}
inline sighting verified(const ipv6::bucket& b, const key6& k, unsigned at) noexcept {
  const auto& e = b.entries[at & 3];
  const std::uint64_t other = ((e.word.value ^ k.vip_bits) & abi::connection_word::vip_mask) |
                              (e.source_low ^ k.source_low) | (at & 4);
  return {at & 3, std::uint64_t{other != 0}};
}

}  // namespace detail

// Each probe's match() returns the place (0 to 3) of a key in a bucket, 4 if it is not
// there. No two places hold the same key, and no free place matches any key. look() is for
// many keys in a row: no branches, and it may miss a key that is there if the bucket holds
// another with the same addresses and ports (another VIP's): then match() decides.

struct scalar_probe {
  static unsigned match(const ipv4::bucket& b, const key4& k) noexcept {
    unsigned found = 1u << 4;
    for (unsigned i = 0; i < 4; ++i) {
      const key4 e = ipv4::key_of(b.entries[i]);
      found |= unsigned{((e.tuple ^ k.tuple) | (e.vip_bits ^ k.vip_bits)) == 0} << i;
    }
    return static_cast<unsigned>(__builtin_ctz(found));
  }
  static unsigned match(const ipv6::bucket& b, const key6& k) noexcept {
    unsigned found = 1u << 4;
    for (unsigned i = 0; i < 4; ++i) {
      const key6 e = ipv6::key_of(b.entries[i]);
      found |= unsigned{((e.source_high ^ k.source_high) | (e.source_low ^ k.source_low) |
                         (e.ports ^ k.ports) | (e.vip_bits ^ k.vip_bits)) == 0}
               << i;
    }
    return static_cast<unsigned>(__builtin_ctz(found));
  }
  template <class Bucket, class Key>
  static sighting look(const Bucket& b, const Key& k) noexcept {
    const unsigned at = match(b, k);
    return {at & 3, at >> 2};
  }
};

#define SLUICE_AVX2 [[gnu::target("avx2,bmi,bmi2")]]
#define SLUICE_AVX512 [[gnu::target("avx512f,avx512vl,avx2,bmi,bmi2")]]

// The words' other bits are masked off; a lane is equal if nothing is left of the xor.
struct avx2_probe {
  SLUICE_AVX2 static unsigned match(const ipv4::bucket& b, const key4& k) noexcept {
    const __m256i key =
        _mm256_set_epi64x(static_cast<long long>(k.vip_bits), static_cast<long long>(k.tuple),
                          static_cast<long long>(k.vip_bits), static_cast<long long>(k.tuple));
    const __m256i mask = _mm256_set_epi64x(0xffff, -1, 0xffff, -1);
    const unsigned lanes = equal_lanes(b.entries, key, mask) | equal_lanes(b.entries + 2, key, mask)
                                                                   << 4;
    return static_cast<unsigned>(__builtin_ctz((lanes & lanes >> 1 & 0x55) | 1u << 8)) >> 1;
  }
  SLUICE_AVX2 static unsigned match(const ipv6::bucket& b, const key6& k) noexcept {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&k));
    const __m256i mask = _mm256_set_epi64x(0xffff, -1, -1, -1);
    unsigned lanes = 0;
    for (unsigned i = 0; i < 4; ++i) lanes |= equal_lanes(b.entries + i, key, mask) << (4 * i);
    lanes &= lanes >> 1;
    lanes &= lanes >> 2;
    return static_cast<unsigned>(__builtin_ctz((lanes & 0x1111) | 1u << 16)) >> 2;
  }
  SLUICE_AVX2 static sighting look(const ipv4::bucket& b, const key4& k) noexcept {
    const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i*>(b.entries));
    const __m256i y = _mm256_load_si256(reinterpret_cast<const __m256i*>(b.entries + 2));
    const __m256i equal = _mm256_cmpeq_epi64(_mm256_unpacklo_epi64(x, y),
                                             _mm256_set1_epi64x(static_cast<long long>(k.tuple)));
    const unsigned at = detail::place_of_0213(
        static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(equal))));
    return detail::verified(b, k, at);
  }
  SLUICE_AVX2 static sighting look(const ipv6::bucket& b, const key6& k) noexcept {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&k));
    const __m256i wanted = _mm256_unpacklo_epi64(key, key);
    const unsigned low = equal_halves(b.entries, wanted);
    const unsigned high = equal_halves(b.entries + 2, wanted);
    return detail::verified(b, k,
                            detail::place_of((low & low >> 2 & 3) | (high & high >> 2 & 3) << 2));
  }

 private:
  // Of two entries: [high high ports ports].
  SLUICE_AVX2 static unsigned equal_halves(const ipv6::entry* two, __m256i wanted) noexcept {
    const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i*>(two));
    const __m256i y = _mm256_load_si256(reinterpret_cast<const __m256i*>(two + 1));
    const __m256i equal = _mm256_cmpeq_epi64(_mm256_unpacklo_epi64(x, y), wanted);
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(equal)));
  }
  SLUICE_AVX2 static unsigned equal_lanes(const void* at, __m256i key, __m256i mask) noexcept {
    const __m256i x = _mm256_load_si256(static_cast<const __m256i*>(at));
    const __m256i equal = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_xor_si256(x, key), mask),
                                             _mm256_setzero_si256());
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(equal)));
  }
};

// (maskz_: gcc 12 warns of the undefined value that the plain broadcasts start from.)
struct avx512_probe {
  SLUICE_AVX512 static unsigned match(const ipv4::bucket& b, const key4& k) noexcept {
    const __m512i key = _mm512_maskz_broadcast_i32x4(
        0xffff,
        _mm_set_epi64x(static_cast<long long>(k.vip_bits), static_cast<long long>(k.tuple)));
    const __m512i mask = _mm512_maskz_broadcast_i32x4(0xffff, _mm_set_epi64x(0xffff, -1));
    const unsigned lanes = equal_lanes(&b, key, mask);
    return static_cast<unsigned>(__builtin_ctz((lanes & lanes >> 1 & 0x55) | 1u << 8)) >> 1;
  }
  SLUICE_AVX512 static unsigned match(const ipv6::bucket& b, const key6& k) noexcept {
    const __m512i key = _mm512_maskz_broadcast_i64x4(
        0xff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&k)));
    const __m512i mask = _mm512_maskz_broadcast_i64x4(0xff, _mm256_set_epi64x(0xffff, -1, -1, -1));
    unsigned lanes = equal_lanes(b.entries, key, mask) | equal_lanes(b.entries + 2, key, mask) << 8;
    lanes &= lanes >> 1;
    lanes &= lanes >> 2;
    return static_cast<unsigned>(__builtin_ctz((lanes & 0x1111) | 1u << 16)) >> 2;
  }
  SLUICE_AVX512 static sighting look(const ipv4::bucket& b, const key4& k) noexcept {
    const __m512i key =
        _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(&k)));
    const __m512i mask = _mm512_maskz_broadcast_i32x4(0xffff, _mm_set_epi64x(0xffff, -1));
    const unsigned lanes = equal_lanes(&b, key, mask);
    const auto at = static_cast<unsigned>(__builtin_ctz((lanes & lanes >> 1 & 0x55) | 1u << 8));
    return {at >> 1 & 3, at >> 3};
  }
  SLUICE_AVX512 static sighting look(const ipv6::bucket& b, const key6& k) noexcept {
    const unsigned at = match(b, k);
    return {at & 3, at >> 2};
  }

 private:
  SLUICE_AVX512 static unsigned equal_lanes(const void* at, __m512i key, __m512i mask) noexcept {
    const __m512i x = _mm512_load_si512(at);
    return static_cast<unsigned>(
        static_cast<unsigned char>(_mm512_testn_epi64_mask(_mm512_xor_si512(x, key), mask)));
  }
};

enum class instruction_set : std::uint8_t { scalar, avx2, avx512 };

inline instruction_set best_instruction_set() noexcept {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") ||
      !__builtin_cpu_supports("bmi2"))
    return instruction_set::scalar;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
             ? instruction_set::avx512
             : instruction_set::avx2;
}

}  // namespace sluice::connection
