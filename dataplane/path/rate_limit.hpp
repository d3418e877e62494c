// SPDX-License-Identifier: Apache-2.0
// rate_limit: a token bucket that holds one second's worth, in one word: the time at which
// it would be full again (GCRA, ITU-T I.371 annex A). A word of zero is a full bucket.
// syn_meter: is this a flood?
#pragma once

#include <algorithm>
#include <cstdint>

namespace sluice {

inline constexpr std::uint64_t ns_per_second = 1'000'000'000;

class rate_limit {
 public:
  // take() takes a token of a bucket that gets `rate` of them per second; false: it is
  // empty. rate 0: no limit. now_ns never goes back.
  [[nodiscard]] bool take(std::uint32_t rate, std::uint64_t now_ns) noexcept {
    if (rate == 0) return true;
    // Sixteenths of a nanosecond: a step is 3 or more for any rate.
    constexpr std::uint64_t second = ns_per_second << 4;
    const std::uint64_t now = now_ns << 4;
    const std::uint64_t full = std::max(full_, now) + second / rate;
    if (full - now > second) return false;
    full_ = full;
    return true;
  }
  // full_again() is when the bucket is full, in 1/16 ns: one that lies in the past says
  // nothing that an empty word does not.
  [[nodiscard]] std::uint64_t full_again() const noexcept { return full_; }

 private:
  std::uint64_t full_{0};
};

// syn_meter: a flood begins with the SYN that exceeds the rate within a second, and ends
// with a second of no more than half the rate.
class syn_meter {
 public:
  // flooded() counts a SYN and tells whether there is a flood. rate 0: never.
  [[nodiscard]] bool flooded(std::uint32_t rate, std::uint64_t now_ns) noexcept {
    if (rate == 0) return false;
    if (now_ns >= window_end_) {
      if (count_ <= rate / 2 || now_ns - window_end_ >= ns_per_second) on_ = false;
      count_ = 0;
      window_end_ = now_ns + ns_per_second;
    }
    if (count_ <= rate) ++count_;
    on_ = on_ || count_ > rate;
    return on_;
  }

 private:
  std::uint64_t window_end_{0};
  std::uint32_t count_{0};
  bool on_{false};
};

}  // namespace sluice
