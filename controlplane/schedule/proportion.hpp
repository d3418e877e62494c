// SPDX-License-Identifier: Apache-2.0
// Whole numbers of slots in proportion to weights, for the weighted schedulers in turn and at
// random.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "controlplane/schedule/schedule.hpp"

namespace sluice::schedule {

// cycle_of() is the sum of the weights divided by their greatest common divisor.
[[nodiscard]] std::uint64_t cycle_of(std::span<const member> members) noexcept;

// slots_of() returns how many of `size` slots each member has: exactly in proportion when size
// is cycle_of(), otherwise one each and the rest in proportion (largest remainder).
[[nodiscard]] std::vector<std::uint32_t> slots_of(std::span<const member> members,
                                                  std::uint32_t size);

}  // namespace sluice::schedule
