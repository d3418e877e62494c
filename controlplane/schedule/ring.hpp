// SPDX-License-Identifier: Apache-2.0
// The ring of virtual nodes that ring_hash and partitioned_hash share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "controlplane/schedule/schedule.hpp"

namespace sluice::schedule {

struct ring_point {
  std::uint64_t at{};
  std::uint32_t owner{};  // position in the members

  auto operator<=>(const ring_point&) const = default;
};

// ring_of() returns the members' points in ascending order; at least one for each member.
[[nodiscard]] std::vector<ring_point> ring_of(std::span<const member> members, std::uint64_t seed);

}  // namespace sluice::schedule
