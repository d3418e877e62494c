// SPDX-License-Identifier: Apache-2.0
// never_answered() tells from what a backend was sent within half a second whether its new TCP
// connections get past their SYN: a client that was answered sends two packets more at once, one
// that was not repeats its SYN after a second. Loose on purpose: what follows is a probe. Pure.
#pragma once

#include <cstdint>

namespace sluice::decision {

inline constexpr std::uint64_t fewest_to_judge = 4;  // connections, or resets; fewer say nothing

[[nodiscard]] constexpr bool never_answered(std::uint64_t connections,
                                            std::uint64_t packets) noexcept {
  return connections >= fewest_to_judge && packets < 2 * connections;
}

[[nodiscard]] constexpr bool keeps_resetting(std::uint64_t connections,
                                             std::uint64_t resets) noexcept {
  return resets >= fewest_to_judge && 2 * resets >= connections;
}

}  // namespace sluice::decision
