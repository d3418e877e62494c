// SPDX-License-Identifier: Apache-2.0
// range_set: the addresses of an allow or deny list as disjoint ranges, and as the bytes that
// dataplane/abi/prefix_list.hpp reads. Not changed once made; shared freely between threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/prefix_list.hpp"

namespace sluice::lists {

struct range4 {
  std::uint32_t first, last;  // host order, inclusive

  auto operator<=>(const range4&) const = default;
};
struct range6 {
  std::array<std::uint8_t, 16> first, last;  // network order, inclusive

  auto operator<=>(const range6&) const = default;
};
static_assert(sizeof(range4) == 8 && sizeof(range6) == 32);

class range_set {
 public:
  range_set() = default;
  // Prefixes in any order, overlapping or not; those that touch become one range.
  explicit range_set(std::span<const ip_prefix> prefixes);
  // The same from ranges; false from valid(): they are not ascending, disjoint ones.
  range_set(std::vector<range4> four, std::vector<range6> six);
  [[nodiscard]] bool valid() const noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return four_.size() + six_.size(); }
  [[nodiscard]] std::uint64_t digest() const noexcept { return digest_; }
  bool operator==(const range_set& other) const noexcept {
    return digest_ == other.digest_ && four_ == other.four_ && six_ == other.six_;
  }

  // bytes() is the room that write() needs, at least 1. write() fills it and returns the row
  // that finds it; `offset` is where `to` lies in the segment, a multiple of 64.
  [[nodiscard]] std::uint64_t bytes() const noexcept;
  abi::prefix_list write(std::byte* to, std::uint64_t offset) const noexcept;

 private:
  void digest_now() noexcept;

  std::vector<range4> four_;
  std::vector<range6> six_;
  std::uint64_t digest_{0};
};

using shared_ranges = std::shared_ptr<const range_set>;

// offset_of() is where write() has put a list, from its row.
[[nodiscard]] std::uint64_t offset_of(const abi::prefix_list& row) noexcept;

}  // namespace sluice::lists
