// SPDX-License-Identifier: Apache-2.0
// Keys of the connection table and their hash under a per-boot secret.
//
// The mixer folds 64x64->128 bit products ("mum", as in Wang Yi's wyhash) of words that
// are masked with secret words. It is not linear, unlike CRC32 or Toeplitz: for those,
// two keys that collide under one secret collide under every secret, so that an
// attacker could prepare flows that all meet in one bucket. It is no cryptographic MAC;
// the hash itself never leaves the process.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/connection_layout.hpp"

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

class bucket_hasher {
 public:
  // secret: 128 random bits, new with every table.
  explicit constexpr bucket_hasher(const std::array<std::uint64_t, 2>& secret) noexcept {
    // splitmix64 over the secret gives the four words; no knowledge of one tells another
    // without inverting it, which nobody outside can try as no hash is visible.
    std::uint64_t x = secret[0];
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (i == 2) x ^= secret[1];
      x += 0x9e3779b97f4a7c15ull;
      words_[i] = finalise(x ^ (secret[1] << (i + 1) | secret[1] >> (63 - i)));
    }
  }

  [[nodiscard]] constexpr bucket_hash operator()(const key4& k) const noexcept {
    const std::uint64_t season = (k.vip_bits << 24) ^ words_[1];
    return {fold(fold(k.tuple ^ words_[0], season) ^ words_[2], words_[3])};
  }
  [[nodiscard]] constexpr bucket_hash operator()(const key6& k) const noexcept {
    const std::uint64_t a = fold(k.source_high ^ words_[0], k.source_low ^ words_[1]);
    const std::uint64_t b = fold((k.ports | k.vip_bits << 40) ^ words_[2], words_[3]);
    return {fold(a ^ words_[3], b ^ words_[1])};
  }

 private:
  static constexpr std::uint64_t finalise(std::uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }
  static constexpr std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
#ifdef __x86_64__
    if (!std::is_constant_evaluated()) {
      // gcc 12 takes the two halves of the product through the stack.
      std::uint64_t high;
      asm("mulq %2" : "+a"(a), "=d"(high) : "rm"(b) : "cc");
      return a ^ high;
    }
#endif
    __extension__ using wide = unsigned __int128;
    const wide product = static_cast<wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }

  std::array<std::uint64_t, 4> words_{};
};

}  // namespace sluice::connection
