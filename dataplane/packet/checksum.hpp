// SPDX-License-Identifier: Apache-2.0
// The Internet checksum (RFC 1071). Sums are taken over the words as they are in memory:
// one's complement addition does not mind the byte order, as long as the result goes back
// the same way (RFC 1071 section 2 (B)).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

// fold() brings a sum of 16-bit words down to 16 bits, end-around carries included: the
// upper half of x + (x rotated by half) is the sum of its halves and their carry.
constexpr std::uint16_t fold(std::uint64_t sum) noexcept {
  const auto s = static_cast<std::uint32_t>((sum + std::rotl(sum, 32)) >> 32);
  return static_cast<std::uint16_t>((s + std::rotl(s, 16)) >> 16);
}

// add() is one's complement addition of 64-bit words. (Written so that gcc makes it add
// and adc.)
constexpr std::uint64_t add(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t s = 0;
  const bool carry = __builtin_add_overflow(a, b, &s);
  return s + static_cast<std::uint64_t>(carry);
}

// sums_to_ones() is checksum_holds() for a 64-bit one's complement sum that is not 0, which is
// right if 65535 divides it: multiplied by the inverse of 65535 modulo 2^64, exactly the
// multiples come out no greater than 2^64 / 65535 (Hacker's Delight section 10-17).
constexpr bool sums_to_ones(std::uint64_t sum) noexcept {
  constexpr std::uint64_t inverse = [] {
    std::uint64_t x = 1;  // Newton: each step doubles the bits that are right
    for (int i = 0; i < 6; ++i) x *= 2 - 65535 * x;
    return x;
  }();
  static_assert(inverse * 65535 == 1);
  return sum * inverse <= ~std::uint64_t{0} / 65535;
}

// sum() adds up any number of bytes; an odd last byte counts as the word's first.
inline std::uint64_t sum(std::span<const std::byte> bytes) noexcept {
  std::uint64_t total = 0;
  std::size_t i = 0;
  for (; i + 4 <= bytes.size(); i += 4) {
    std::uint32_t w;
    std::memcpy(&w, bytes.data() + i, 4);
    total += w;
  }
  std::uint32_t rest = 0;
  // At most three: said so that gcc believes it.
  if (const std::size_t left = bytes.size() & 3; left != 0)
    std::memcpy(&rest, bytes.data() + i, left);
  return total + rest;
}

// checksum() is what goes into the header, given the sum of everything else.
constexpr be16 checksum(std::uint64_t total) noexcept {
  return be16::from_raw(static_cast<std::uint16_t>(~fold(total)));
}

// checksum_holds() tells whether a sum that includes the checksum field is right
// (RFC 1071 section 1: all ones).
constexpr bool checksum_holds(std::uint64_t total) noexcept {
  return fold(total) == 0xffff;
}

// updated() returns the checksum after one 16-bit word of what it covers has changed:
// HC' = ~(~HC + ~m + m') (RFC 1624 section 3, eqn. 3; eqn. 4 goes wrong on zeros).
constexpr be16 updated(be16 old_checksum, be16 old_word, be16 new_word) noexcept {
  const auto not16 = [](std::uint16_t v) { return static_cast<std::uint16_t>(~v); };
  const std::uint64_t total =
      std::uint64_t{not16(old_checksum.raw())} + not16(old_word.raw()) + new_word.raw();
  return checksum(total);
}

// changed() returns a checksum after some of what it covers has changed: the sums are of
// the words before and after, in any order, as sum() gives them.
inline be16 changed(be16 old_checksum, std::uint64_t before, std::uint64_t after) noexcept {
  const std::uint64_t total = std::uint64_t{static_cast<std::uint16_t>(~old_checksum.raw())} +
                              static_cast<std::uint16_t>(~fold(before)) + fold(after);
  return checksum(total);
}

}  // namespace sluice::wire
