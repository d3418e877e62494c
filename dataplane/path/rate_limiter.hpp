// SPDX-License-Identifier: Apache-2.0
// A token bucket in one number: the generic cell rate algorithm (ITU-T I.371 annex A).
#pragma once

#include <cstdint>

namespace sluice {

class rate_limiter {
 public:
  // allow() takes one token. The bucket holds `depth_ns` worth of them, and one. rate: per
  // second, above 0. now_ns: any clock that does not go back.
  bool allow(std::uint64_t now_ns, std::uint32_t rate,
             std::uint64_t depth_ns = 100'000'000) noexcept {
    if (due_ns_ < now_ns) due_ns_ = now_ns;
    if (due_ns_ - now_ns > depth_ns) return false;
    due_ns_ += 1'000'000'000u / rate;
    return true;
  }

 private:
  std::uint64_t due_ns_{0};  // when the bucket will be full again
};

}  // namespace sluice
