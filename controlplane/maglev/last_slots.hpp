// SPDX-License-Identifier: Apache-2.0
// last_slots: the slots of a Maglev table that are still free when nearly all are taken. A
// member's walk through its permutation would then meet taken ones nearly always; instead
// each free slot is asked how many steps of the walk away it is, and the nearest is it.
//
// A walk is position + k * skip modulo the table's size. The size is a prime, so skip has an
// inverse, and slot f is (f - position) * inverse steps away.
//
// Any thread; no shared state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::maglev {

// multiplier: multiplies by a constant modulo m without a division (Shoup's method).
struct multiplier {
  std::uint32_t factor{};    // below m
  std::uint32_t quotient{};  // factor * 2^32 / m, rounded down
};

// inverse_multipliers() returns, for each of `values` (1 to m - 1), what multiplies by its
// inverse modulo the prime m (below 2^24).
[[nodiscard]] std::vector<multiplier> inverse_multipliers(std::span<const std::uint32_t> values,
                                                          std::uint32_t m);

// fewest_steps() returns the least (slot - position) * by modulo m of all `slots`; those,
// and position, are below m, which is below 2^24. Without slots: 2^32 - 1.
// By eight at a time where the CPU has AVX2; _portable() is the same without.
[[nodiscard]] std::uint32_t fewest_steps(std::span<const std::uint32_t> slots,
                                         std::uint32_t position, multiplier by,
                                         std::uint32_t m) noexcept;
[[nodiscard]] std::uint32_t fewest_steps_portable(std::span<const std::uint32_t> slots,
                                                  std::uint32_t position, multiplier by,
                                                  std::uint32_t m) noexcept;

}  // namespace sluice::maglev
