// SPDX-License-Identifier: Apache-2.0
// Numbers that name rows of the shared tables. Distinct types, so that a VIP's
// number cannot be used where a service's is meant.
#pragma once

#include <cstdint>

namespace sluice::abi {

enum class vip_id : std::uint16_t {};
enum class service_id : std::uint16_t {};

inline constexpr service_id no_service{0xffff};
inline constexpr vip_id no_vip{0xffff};

// backend_ref: row number (20 bits) and the row's incarnation (4 bits). A row that
// is given to another backend gets the next incarnation, so a connection that still
// names the old one does not match (and rows are reused in FIFO order besides).
struct backend_ref {
  std::uint32_t value{none_value};

  static constexpr std::uint32_t index_bits = 20;
  static constexpr std::uint32_t incarnation_bits = 4;
  static constexpr std::uint32_t bits = index_bits + incarnation_bits;
  static constexpr std::uint32_t none_value = (1u << bits) - 1;  // row 0xfffff is never used

  static constexpr backend_ref make(std::uint32_t index, std::uint32_t incarnation) noexcept {
    return {(incarnation & ((1u << incarnation_bits) - 1)) << index_bits |
            (index & ((1u << index_bits) - 1))};
  }
  [[nodiscard]] constexpr std::uint32_t index() const noexcept {
    return value & ((1u << index_bits) - 1);
  }
  [[nodiscard]] constexpr std::uint32_t incarnation() const noexcept { return value >> index_bits; }
  [[nodiscard]] constexpr bool none() const noexcept { return value == none_value; }
  constexpr bool operator==(const backend_ref&) const noexcept = default;
};

inline constexpr std::uint32_t max_backends = (1u << backend_ref::index_bits) - 1;
inline constexpr std::uint32_t max_services = 0xfff0;

}  // namespace sluice::abi
