// SPDX-License-Identifier: Apache-2.0
// Allow and deny lists: sets of prefixes in the config segment's arena.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"

namespace sluice::abi {

// prefix_list: a set of addresses as disjoint inclusive ranges in ascending order, in the
// arena. IPv4: u32 pairs (first, last) in host order, and before them an index of 65537 u32:
// the ranges that end in or after 1/65536th i of the space begin at index[i]. IPv6: pairs of
// 16 bytes in network order.
struct prefix_list {
  std::uint64_t index4;   // of u32[65537], from the segment's start
  std::uint64_t ranges4;  // of {u32 first, last}[count4]
  std::uint64_t ranges6;  // of {u8 first[16], last[16]}[count6]
  std::uint32_t count4, count6;

  // holds() tells whether an address is in the list. `this` is a copy of the row, checked
  // here: false when a part of it lies outside the arena (offsets from `segment`).
  [[nodiscard]] bool holds(const std::byte* segment, std::uint64_t arena_first,
                           std::uint64_t arena_last, const ip_address& address) const noexcept;
};
static_assert(sizeof(prefix_list) == 32);

inline bool prefix_list::holds(const std::byte* segment, std::uint64_t arena_first,
                               std::uint64_t arena_last, const ip_address& address) const noexcept {
  // Whoever can write the segment may change a number between its check and its use.
  const auto load = [](const std::uint32_t& v) { return __atomic_load_n(&v, __ATOMIC_RELAXED); };
  const auto inside = [=](std::uint64_t offset, std::uint64_t bytes, std::uint64_t alignment) {
    return offset >= arena_first && offset <= arena_last && offset % alignment == 0 &&
           bytes <= arena_last - offset;
  };
  if (address.is_v4()) {
    struct range {
      std::uint32_t first, last;
    };
    constexpr std::uint32_t index_size = 65537;
    if (count4 == 0 || !inside(index4, index_size * 4, 4) ||
        !inside(ranges4, std::uint64_t{count4} * sizeof(range), 4))
      return false;
    const auto* index = reinterpret_cast<const std::uint32_t*>(segment + index4);
    const auto* ranges = reinterpret_cast<const range*>(segment + ranges4);
    const std::uint32_t wanted = address.v4_raw().host();
    // Ranges before index[i] end before this 65536th; those from index[i + 1] on begin there
    // or behind, or reach beyond it: one more than the index says has to be looked at.
    std::uint32_t low = load(index[wanted >> 16]);
    std::uint32_t high = load(index[(wanted >> 16) + 1]);
    high = high < count4 ? high + 1 : count4;
    while (low < high) {
      const std::uint32_t middle = low + (high - low) / 2;
      if (load(ranges[middle].last) < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < count4 && load(ranges[low].first) <= wanted && wanted <= load(ranges[low].last);
  }
  struct range {
    std::array<std::uint8_t, 16> first, last;
  };
  if (count6 == 0 || !inside(ranges6, std::uint64_t{count6} * sizeof(range), 1)) return false;
  const auto* ranges = reinterpret_cast<const range*>(segment + ranges6);
  std::uint32_t low = 0;
  std::uint32_t high = count6;
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (std::memcmp(ranges[middle].last.data(), address.bytes.data(), 16) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count6 && std::memcmp(ranges[low].first.data(), address.bytes.data(), 16) <= 0 &&
         std::memcmp(address.bytes.data(), ranges[low].last.data(), 16) <= 0;
}

}  // namespace sluice::abi
