// SPDX-License-Identifier: Apache-2.0
// source_rates: a token bucket per source prefix and service, 65536 of them per worker, in
// sets of four (one cache line).
//
// Keys are hashes under the connection table's secret, so that nobody can aim at a set. A
// bucket that is full again is given away freely: it says no more than a new one. Only when
// four prefixes of a set are all below their full bucket does a fifth displace one, the
// fullest, which then starts again with a full bucket: too many sources make the limit
// lenient, and never make one source pay for another.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/path/rate_limit.hpp"

namespace sluice {

class source_rates {
 public:
  static constexpr std::size_t ways = 4;
  static constexpr std::size_t sets = 16384;

  // take() takes a token of the bucket of a key; see rate_limit::take().
  [[nodiscard]] bool take(std::uint64_t key, std::uint32_t rate, std::uint64_t now_ns) noexcept {
    set& s = sets_[key >> 50];
    static_assert(sets == std::size_t{1} << (64 - 50));
    const std::uint64_t tag = key | 1;  // 0: never used
    entry* fullest = &s.entries[0];
    for (entry& e : s.entries) {
      if (e.tag == tag) return e.bucket.take(rate, now_ns);
      if (e.bucket.full_again() < fullest->bucket.full_again()) fullest = &e;
    }
    *fullest = {tag, {}};
    return fullest->bucket.take(rate, now_ns);
  }

 private:
  struct entry {
    std::uint64_t tag;
    rate_limit bucket;
  };
  struct alignas(cache_line) set {
    std::array<entry, ways> entries;
  };
  static_assert(sizeof(set) == cache_line);

  std::array<set, sets> sets_{};
};

}  // namespace sluice
