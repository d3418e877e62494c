// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "controlplane/schedule/ring.hpp"
#include "dataplane/abi/flow_hash.h"

namespace sluice::schedule {

std::vector<ring_point> ring_of(std::span<const member> members, std::uint64_t seed) {
  std::uint64_t total = 0;
  const auto points_of = [](const member& m, unsigned halved) {
    return std::max<std::uint64_t>((std::uint64_t{m.weight} * points_per_weight / 100) >> halved,
                                   1);
  };
  // Halving all of them keeps most of the points where they are.
  unsigned halved = 0;
  for (;; ++halved) {
    total = 0;
    for (const member& m : members) total += points_of(m, halved);
    if (total <= most_points || halved == 32) break;
  }
  std::vector<ring_point> ring;
  ring.reserve(total);
  for (std::uint32_t i = 0; i < members.size(); ++i) {
    const std::uint64_t h = sluice_mix64(maglev::identity_hash(members[i].id) ^ sluice_mix64(seed));
    const std::uint64_t points = points_of(members[i], halved);
    for (std::uint64_t k = 0; k < points; ++k)
      ring.push_back({sluice_mix64(h + k * 0x9e3779b97f4a7c15ull), i});
  }
  std::sort(ring.begin(), ring.end());
  return ring;
}

void build_ring(std::span<const member> members, std::uint64_t seed,
                std::span<std::uint16_t> table) {
  const std::vector<ring_point> ring = ring_of(members, seed);
  auto point = ring.begin();
  for (std::size_t slot = 0; slot < table.size(); ++slot) {
    // Where the slot begins on the ring: slot / size of 2^64, rounded down to 2^32 steps, as
    // sluice_slot() reads a hash.
    const std::uint64_t begin = ((static_cast<std::uint64_t>(slot) << 32) / table.size()) << 32;
    while (point != ring.end() && point->at < begin) ++point;
    table[slot] = static_cast<std::uint16_t>((point == ring.end() ? ring.front() : *point).owner);
  }
}

}  // namespace sluice::schedule
