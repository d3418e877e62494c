// SPDX-License-Identifier: Apache-2.0
// A histogram of durations in cycles, exact to 1 %: buckets grow with the value, as in
// HdrHistogram.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sluice::perf {

class latencies {
 public:
  void clear() noexcept {
    counts_.fill(0);
    total_ = most_ = 0;
  }

  void add(std::uint64_t cycles) noexcept {
    ++counts_[bucket_of(cycles)];
    ++total_;
    most_ = std::max(most_, cycles);
  }

  [[nodiscard]] std::uint64_t total() const noexcept { return total_; }
  [[nodiscard]] std::uint64_t most() const noexcept { return most_; }

  // quantile() returns the cycles that the fraction q of all values does not exceed.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
    const auto rank = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
      seen += counts_[i];
      if (seen > rank) return std::min(most_, highest_in(i));
    }
    return most_;
  }

 private:
  static constexpr unsigned bits = 7;  // of each power of two: 128 buckets
  static constexpr std::uint64_t linear = std::uint64_t{1} << bits;
  static constexpr std::size_t buckets = (64 - bits + 1) * linear;

  static std::size_t bucket_of(std::uint64_t v) noexcept {
    if (v < linear) return v;
    const auto shift = static_cast<unsigned>(std::bit_width(v)) - bits - 1;
    return (shift + 1) * linear + (v >> shift) - linear;
  }
  static std::uint64_t highest_in(std::size_t bucket) noexcept {
    if (bucket < linear) return bucket;
    const std::uint64_t shift = bucket / linear - 1;
    return ((bucket % linear + linear + 1) << shift) - 1;
  }

  std::array<std::uint64_t, buckets> counts_{};
  std::uint64_t total_{0};
  std::uint64_t most_{0};
};

}  // namespace sluice::perf
