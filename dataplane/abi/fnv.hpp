// SPDX-License-Identifier: Apache-2.0
// FNV-1a (Fowler, Noll, Vo), 64 bits, over 64-bit words or bytes: digests for comparing
// tables between nodes, checksums, names. Not for hash tables that an attacker may aim at.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace sluice {

class fnv1a {
 public:
  constexpr void add(std::uint64_t word) noexcept { value_ = (value_ ^ word) * prime; }
  constexpr void add(std::string_view text) noexcept {
    for (const char c : text) add(std::uint64_t{static_cast<unsigned char>(c)});
  }
  // add_object() adds the bytes of a value that has no padding.
  template <class T>
  void add_object(const T& value) noexcept {
    static_assert(std::has_unique_object_representations_v<T>);
    std::array<unsigned char, sizeof value> bytes;
    std::memcpy(bytes.data(), &value, sizeof value);
    for (const unsigned char b : bytes) add(std::uint64_t{b});
  }
  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return value_; }

 private:
  static constexpr std::uint64_t prime = 0x100000001b3ull;
  std::uint64_t value_{0xcbf29ce484222325ull};
};

}  // namespace sluice
