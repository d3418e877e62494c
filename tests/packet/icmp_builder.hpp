// SPDX-License-Identifier: Apache-2.0
// ICMP messages for tests, as frame_builder.hpp.
#pragma once

#include "tests/packet/frame_builder.hpp"

namespace sluice::test {

inline void put_checksum(bytes& message, unsigned sum) {
  message[2] = static_cast<std::uint8_t>(sum >> 8);
  message[3] = static_cast<std::uint8_t>(sum);
}

inline bytes icmp_unsummed(unsigned type, unsigned code, std::uint32_t word, const bytes& rest) {
  bytes b;
  put8(b, type);
  put8(b, code);
  put16(b, 0);
  put32(b, word);
  return b + rest;
}
// icmp4() is a message with its checksum; `error` is added to it by exclusive or.
inline bytes icmp4(unsigned type, unsigned code, std::uint32_t word, const bytes& rest,
                   unsigned error = 0) {
  bytes b = icmp_unsummed(type, code, word, rest);
  put_checksum(b, checksum_of(b, 0, b.size()) ^ error);
  return b;
}
// icmp6() is the same with the pseudo-header of RFC 8200.
inline bytes icmp6(const hexadec& source, const hexadec& destination, unsigned type, unsigned code,
                   std::uint32_t word, const bytes& rest, unsigned error = 0) {
  bytes b = icmp_unsummed(type, code, word, rest);
  bytes pseudo(source.begin(), source.end());
  pseudo.insert(pseudo.end(), destination.begin(), destination.end());
  put32(pseudo, static_cast<std::uint32_t>(b.size()));
  put32(pseudo, 58);
  append(pseudo, b);
  put_checksum(b, checksum_of(pseudo, 0, pseudo.size()) ^ error);
  return b;
}

// first() is the first n bytes.
inline bytes first(const bytes& b, std::size_t n) {
  return bytes(b.begin(), b.begin() + static_cast<std::ptrdiff_t>(n < b.size() ? n : b.size()));
}

}  // namespace sluice::test
