// SPDX-License-Identifier: Apache-2.0
// is_full() tells whether a backend has as many connections as it may: from `most` on, until a
// tenth of them (one at least) has gone. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sluice::decision {

[[nodiscard]] constexpr bool is_full(bool before, std::uint64_t connections,
                                     std::uint32_t most) noexcept {
  if (most == 0) return false;
  if (connections >= most) return true;
  return before && connections > most - std::max<std::uint32_t>(most / 10, 1);
}

}  // namespace sluice::decision
