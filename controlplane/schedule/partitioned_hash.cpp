// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>

#include "controlplane/schedule/ring.hpp"
#include "dataplane/abi/flow_hash.h"

namespace sluice::schedule {
namespace {

constexpr std::uint64_t partition_salt = 0x7061727469746e73ull;

// open_points finds, from a place on the ring, the first point whose owner has room. Points of
// full members are skipped for good (a union-find over neighbours), so that the whole walk is
// linear.
class open_points {
 public:
  explicit open_points(std::size_t count) : next_(count + 1) {
    std::iota(next_.begin(), next_.end(), std::uint32_t{0});
  }
  template <class Full>
  std::size_t find(std::size_t from, Full&& full) {
    while (true) {
      const std::size_t at = root(from);
      if (at + 1 == next_.size() || !full(at)) return at;
      next_[at] = static_cast<std::uint32_t>(at + 1);
    }
  }

 private:
  std::size_t root(std::size_t i) {
    while (next_[i] != i) {
      next_[i] = next_[next_[i]];
      i = next_[i];
    }
    return i;
  }
  std::vector<std::uint32_t> next_;
};

}  // namespace

void build_partitions(std::span<const member> members, std::uint64_t seed,
                      std::span<std::uint16_t> table) {
  const std::vector<ring_point> ring = ring_of(members, seed);
  std::uint64_t total = 0;
  for (const member& m : members) total += m.weight;
  // Rounded up, so that together they have room for all.
  std::vector<std::uint64_t> room(members.size());
  for (std::size_t i = 0; i < members.size(); ++i)
    room[i] = static_cast<std::uint64_t>(std::ceil(load_factor * static_cast<double>(table.size()) *
                                                   static_cast<double>(members[i].weight) /
                                                   static_cast<double>(total)));
  open_points open{ring.size()};
  const auto full = [&](std::size_t at) { return room[ring[at].owner] == 0; };
  for (std::size_t slot = 0; slot < table.size(); ++slot) {
    const std::uint64_t place = sluice_mix64(slot ^ sluice_mix64(seed ^ partition_salt));
    const auto first = std::lower_bound(ring.begin(), ring.end(), ring_point{place, 0});
    std::size_t at = open.find(static_cast<std::size_t>(first - ring.begin()), full);
    if (at == ring.size()) at = open.find(0, full);
    const std::uint32_t owner = ring[at].owner;
    --room[owner];
    table[slot] = static_cast<std::uint16_t>(owner);
  }
}

}  // namespace sluice::schedule
