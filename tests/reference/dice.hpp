// SPDX-License-Identifier: Apache-2.0
// Random numbers that are the same everywhere for a seed (the distributions of the standard
// library are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace sluice::reference {

class dice {
 public:
  explicit dice(std::uint64_t seed) : bits_{seed} {}
  // below() is one of 0..n-1.
  unsigned below(std::size_t n) { return static_cast<unsigned>((bits_() >> 32) * n >> 32); }
  unsigned between(unsigned first, unsigned last) { return first + below(last - first + 1u); }
  // chance() is true in so many of 1000 cases.
  bool chance(unsigned permille) { return below(1000) < permille; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(below(256)); }
  std::uint64_t word() { return bits_(); }
  template <class Container>
  auto& one_of(Container& c) {
    return c[below(c.size())];
  }

 private:
  std::mt19937_64 bits_;
};

}  // namespace sluice::reference
