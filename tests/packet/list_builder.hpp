// SPDX-License-Identifier: Apache-2.0
// Writes prefix lists into a table_builder's arena, from ranges that are disjoint and sorted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "dataplane/abi/prefix_list.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

using ipv4_range = std::pair<std::uint32_t, std::uint32_t>;  // host order, inclusive
using ipv6_range = std::pair<ip_address, ip_address>;

// merged() sorts ranges and joins those that touch.
inline std::vector<ipv4_range> merged(std::vector<ipv4_range> in) {
  std::sort(in.begin(), in.end());
  std::vector<ipv4_range> out;
  for (const ipv4_range& r : in) {
    if (!out.empty() && (out.back().second == UINT32_MAX || r.first <= out.back().second + 1)) {
      out.back().second = std::max(out.back().second, r.second);
    } else {
      out.push_back(r);
    }
  }
  return out;
}

// write_list() writes a list at `at` (from the segment's start, a multiple of 4) and moves it
// behind.
inline abi::prefix_list write_list(std::byte* segment, std::uint64_t& at,
                                   const std::vector<ipv4_range>& four,
                                   const std::vector<ipv6_range>& six = {}) {
  abi::prefix_list l{};
  const auto put = [&](const void* from, std::size_t size) {
    std::memcpy(segment + at, from, size);
    at += size;
  };
  l.count4 = static_cast<std::uint32_t>(four.size());
  l.count6 = static_cast<std::uint32_t>(six.size());
  l.index4 = at;
  std::uint32_t n = 0;
  for (std::uint32_t i = 0; i <= 65536; ++i) {
    while (n < four.size() && i < 65536 && four[n].second < i << 16) ++n;
    const std::uint32_t value = i == 65536 ? l.count4 : n;
    put(&value, 4);
  }
  l.ranges4 = at;
  for (const ipv4_range& r : four) {
    put(&r.first, 4);
    put(&r.second, 4);
  }
  l.ranges6 = at;
  for (const ipv6_range& r : six) {
    put(r.first.bytes.data(), 16);
    put(r.second.bytes.data(), 16);
  }
  return l;
}

}  // namespace sluice::test
