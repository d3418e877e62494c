// SPDX-License-Identifier: Apache-2.0
// One round of AES (FIPS 197 section 5.1), as the instruction aesenc does it: SubBytes, ShiftRows,
// MixColumns, AddRoundKey. All x86 servers since 2010 have the instruction; the round in C++ is for
// others, for constants, and for the tests.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace sluice::connection {

// aes_block: 16 bytes in two memory words (little-endian).
struct aes_block {
  std::uint64_t low;
  std::uint64_t high;
  bool operator==(const aes_block&) const noexcept = default;
};

namespace detail {

constexpr std::uint8_t doubled(std::uint8_t x) noexcept {  // in GF(2^8), x^8 = x^4 + x^3 + x + 1
  return static_cast<std::uint8_t>(x << 1 ^ (x >> 7) * 0x1b);
}

// The S-box (FIPS 197 section 5.1.1): walks the powers of 3 and of its inverse side by side.
inline constexpr std::array<std::uint8_t, 256> aes_sbox = [] {
  std::array<std::uint8_t, 256> box{};
  std::uint8_t p = 1;
  std::uint8_t q = 1;
  do {
    p = static_cast<std::uint8_t>(p ^ doubled(p));
    q = static_cast<std::uint8_t>(q ^ q << 1);
    q = static_cast<std::uint8_t>(q ^ q << 2);
    q = static_cast<std::uint8_t>(q ^ q << 4);
    if ((q & 0x80) != 0) q ^= 0x09;
    const auto turned = static_cast<std::uint8_t>(q ^ std::rotl(q, 1) ^ std::rotl(q, 2) ^
                                                  std::rotl(q, 3) ^ std::rotl(q, 4));
    box[p] = turned ^ 0x63;
  } while (p != 1);
  box[0] = 0x63;
  return box;
}();

}  // namespace detail

constexpr aes_block aes_round_portable(aes_block x, aes_block key) noexcept {
  const auto byte = [&x](unsigned i) {
    return static_cast<std::uint8_t>((i < 8 ? x.low : x.high) >> i % 8 * 8);
  };
  aes_block out = key;
  for (unsigned column = 0; column < 4; ++column) {
    std::array<std::uint8_t, 4> s{};
    for (unsigned row = 0; row < 4; ++row)
      s[row] = detail::aes_sbox[byte((column + row) % 4 * 4 + row)];
    for (unsigned row = 0; row < 4; ++row) {
      const std::uint8_t a = s[row];
      const std::uint8_t b = s[(row + 1) % 4];
      const auto mixed = static_cast<std::uint8_t>(detail::doubled(a) ^ detail::doubled(b) ^ b ^
                                                   s[(row + 2) % 4] ^ s[(row + 3) % 4]);
      const unsigned at = column * 4 + row;
      (at < 8 ? out.low : out.high) ^= std::uint64_t{mixed} << at % 8 * 8;
    }
  }
  return out;
}

}  // namespace sluice::connection
