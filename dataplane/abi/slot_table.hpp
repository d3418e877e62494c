// SPDX-License-Identifier: Apache-2.0
// slot_table: a scheduler's table, of positions into a service's members, as it lies in the config
// segment's arena. A position takes one byte where the service has few members, so that more of
// the tables of many services fits a cache, else two (little-endian).
//
// A narrow table has a byte more than slots: so two bytes at any slot of any table belong to it,
// also for a reader that is misled about its width.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/abi/flow_hash.h"

namespace sluice::abi {

inline constexpr std::size_t most_narrow_members = 256;
inline constexpr std::uint32_t most_slots = 1u << 30;

constexpr bool slots_are_wide(std::size_t members) noexcept {
  return members > most_narrow_members;
}
constexpr std::uint64_t table_bytes(std::uint32_t slots, std::size_t members) noexcept {
  return slots_are_wide(members) ? std::uint64_t{slots} * 2 : std::uint64_t{slots} + 1;
}

// position_at() reads a slot: without a branch, and from no more than one cache line. In shared
// memory it may be anything.
inline std::uint16_t position_at(const std::byte* slot, bool wide) noexcept {
  const auto low = std::to_integer<unsigned>(slot[0]);
  const auto high = std::to_integer<unsigned>(slot[wide ? 1 : 0]);
  return static_cast<std::uint16_t>((low | high << 8) & (wide ? 0xffffu : 0xffu));
}

class slot_table {
 public:
  slot_table() noexcept = default;
  // size: at most most_slots.
  slot_table(const std::byte* first, std::uint32_t size, std::size_t members) noexcept
      : first_{first},
        bytes_{slots_are_wide(members) ? size * 2 : size},
        even_{slots_are_wide(members) ? ~1u : ~0u} {}

  [[nodiscard]] std::uint32_t size() const noexcept { return wide() ? bytes_ / 2 : bytes_; }
  [[nodiscard]] bool empty() const noexcept { return bytes_ == 0; }
  // The position in a slot below size().
  [[nodiscard]] std::uint16_t operator[](std::uint32_t slot) const noexcept {
    return position_at(first_ + std::size_t{slot} * (wide() ? 2 : 1), wide());
  }
  // of() is where the slot lies that a hash names; not of an empty table. sluice_slot() of twice
  // the size is twice that of the size, or one more.
  [[nodiscard]] const std::byte* of(std::uint64_t hash) const noexcept {
    return first_ + (sluice_slot(hash, bytes_) & even_);
  }
  [[nodiscard]] bool wide() const noexcept { return (even_ & 1) == 0; }

 private:
  const std::byte* first_{nullptr};
  std::uint32_t bytes_{0};
  std::uint32_t even_{~0u};
};

// write_slots() writes positions of as many members as a table of theirs.
inline void write_slots(std::span<const std::uint16_t> positions, std::size_t members,
                        std::byte* to) noexcept {
  static_assert(std::endian::native == std::endian::little);
  if (slots_are_wide(members)) {
    std::memcpy(to, positions.data(), positions.size_bytes());
    return;
  }
  for (const std::uint16_t p : positions) *to++ = static_cast<std::byte>(p);
}

}  // namespace sluice::abi
