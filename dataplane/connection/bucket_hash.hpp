// SPDX-License-Identifier: Apache-2.0
// Keys of the connection table and their hash under a per-boot secret.
//
// Rounds of AES whose keys are the secret. They are not linear, unlike CRC32 or Toeplitz: for
// those, two keys that collide under one secret collide under every secret, so that an attacker
// could prepare flows that all meet in one bucket. Two rounds make every byte depend on every
// other; through three no difference of two keys goes any one way with more than 2^-54 (nine active
// S-boxes of 2^-6 each: Daemen and Rijmen, The Design of Rijndael, chapter 9). That is no cipher
// and need not be one: the hash never leaves the process. It is an instruction for each round, and
// for four packets where the processor can (classify_wide.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/aes_round.hpp"

namespace sluice::connection {

// Keys hold addresses and ports as they are in the packet (network order, raw). The VIP
// stands for destination address and protocol.
struct key4 {
  std::uint64_t tuple;     // as connection_entry4's first 8 bytes
  std::uint64_t vip_bits;  // connection_word::vip_bits

  static key4 make(be32 source, be16 source_port, be16 destination_port, abi::vip_id vip) noexcept {
    return make(source, source_port, destination_port, abi::connection_word::vip_bits(vip));
  }
  static key4 make(be32 source, be16 source_port, be16 destination_port,
                   std::uint64_t vip_bits) noexcept {
    return {std::uint64_t{source.raw()} | std::uint64_t{source_port.raw()} << 32 |
                std::uint64_t{destination_port.raw()} << 48,
            vip_bits};
  }
  bool operator==(const key4&) const noexcept = default;
};

struct key6 {
  std::uint64_t source_high;
  std::uint64_t source_low;
  std::uint64_t ports;     // as connection_entry6's third 8 bytes
  std::uint64_t vip_bits;  // connection_word::vip_bits

  static key6 make(const ip_address& source, be16 source_port, be16 destination_port,
                   abi::vip_id vip) noexcept {
    return make(source, source_port, destination_port, abi::connection_word::vip_bits(vip));
  }
  static key6 make(const ip_address& source, be16 source_port, be16 destination_port,
                   std::uint64_t vip_bits) noexcept {
    return {source.high(), source.low(),
            std::uint64_t{source_port.raw()} | std::uint64_t{destination_port.raw()} << 16,
            vip_bits};
  }
  bool operator==(const key6&) const noexcept = default;
};

// bucket_hash: two independent halves, one for each bucket that a key may be in.
struct bucket_hash {
  std::uint64_t value;
};

// has_aes tells whether the processor does rounds of AES.
#ifdef __x86_64__
inline const bool has_aes = __builtin_cpu_supports("aes") != 0;
#else
inline constexpr bool has_aes = false;
#endif

class bucket_hasher {
 public:
  // secret: 128 random bits, new with every table.
  explicit constexpr bucket_hasher(const std::array<std::uint64_t, 2>& secret) noexcept {
    // splitmix64 over the secret gives the words; no knowledge of one tells another
    // without inverting it, which nobody outside can try as no hash is visible.
    std::uint64_t x = secret[0];
    for (std::size_t i = 0; i < 2 * keys_.size(); ++i) {
      if (i == 2) x ^= secret[1];
      x += 0x9e3779b97f4a7c15ull;
      const unsigned by = static_cast<unsigned>(i % 31) + 1;
      const std::uint64_t word = finalise(x ^ (secret[1] << by | secret[1] >> (64 - by)));
      (i % 2 == 0 ? keys_[i / 2].low : keys_[i / 2].high) = word;
    }
  }

  [[nodiscard]] constexpr bucket_hash operator()(const key4& k) const noexcept {
    if (!std::is_constant_evaluated() && has_aes) [[likely]]
      return by_instruction(k);
    return portable(k);
  }
  [[nodiscard]] constexpr bucket_hash operator()(const key6& k) const noexcept {
    if (!std::is_constant_evaluated() && has_aes) [[likely]]
      return by_instruction(k);
    return portable(k);
  }

  // by_instruction() is for who has asked has_aes, portable() for everybody.
#ifdef __x86_64__
  [[nodiscard]] [[gnu::always_inline]] bucket_hash by_instruction(const key4& k) const noexcept {
    __m128i x = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&k)), key(0));
    x = round(round(round(x, 1), 2), 3);
    return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(x))};
  }
  [[nodiscard]] [[gnu::always_inline]] bucket_hash by_instruction(const key6& k) const noexcept {
    const auto* const halves = reinterpret_cast<const __m128i*>(&k);
    __m128i x = round(round(_mm_xor_si128(_mm_loadu_si128(halves), key(0)), 1), 2);
    x = _mm_xor_si128(x, _mm_loadu_si128(halves + 1));
    x = round(round(round(x, 3), 4), 5);
    return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(x))};
  }
#else
  template <class Key>
  [[nodiscard]] bucket_hash by_instruction(const Key& k) const noexcept {
    return portable(k);
  }
#endif
  [[nodiscard]] constexpr bucket_hash portable(const key4& k) const noexcept {
    aes_block x{k.tuple ^ keys_[0].low, k.vip_bits ^ keys_[0].high};
    for (unsigned i = 1; i <= 3; ++i) x = aes_round_portable(x, keys_[i]);
    return {x.low};
  }
  [[nodiscard]] constexpr bucket_hash portable(const key6& k) const noexcept {
    aes_block x{k.source_high ^ keys_[0].low, k.source_low ^ keys_[0].high};
    for (unsigned i = 1; i <= 2; ++i) x = aes_round_portable(x, keys_[i]);
    x = {x.low ^ k.ports, x.high ^ k.vip_bits};
    for (unsigned i = 3; i <= 5; ++i) x = aes_round_portable(x, keys_[i]);
    return {x.low};
  }

  // keys() are the rounds', for who hashes several at once: x ^ key 0, then a round with each of
  // the others; of an IPv6 key the second half comes in behind the second round.
  static constexpr std::size_t key_count = 6;
  [[nodiscard]] const std::array<aes_block, key_count>& keys() const noexcept {
    return keys_;
  }

 private:
  static constexpr std::uint64_t finalise(std::uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }
#ifdef __x86_64__
  [[nodiscard]] __m128i key(std::size_t i) const noexcept {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(&keys_[i]));
  }
  // By hand: the intrinsic would take the whole path to be built for processors that have it.
  [[nodiscard]] [[gnu::always_inline]] __m128i round(__m128i x, std::size_t i) const noexcept {
    asm("aesenc %1, %0" : "+x"(x) : "xm"(key(i)));
    return x;
  }
#endif

  alignas(16) std::array<aes_block, key_count> keys_{};
};

}  // namespace sluice::connection
