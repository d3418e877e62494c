// SPDX-License-Identifier: Apache-2.0
// least_connections, weighted_least_connections: the member with the fewest open connections,
// counting the one that is coming, per weight. Ties go to the first of them from a place that
// the flow's hash names. All members are looked at: the cost of a new connection grows with
// their number.
#pragma once

#include <algorithm>

#include "dataplane/path/schedule/context.hpp"

namespace sluice {

template <bool Weighted>
struct fewest_connections {
  static abi::backend_ref pick(const schedule_context& c) noexcept {
    c.loads.watch(c.service.self, c.state);
    const std::uint32_t count = c.service.member_count;
    abi::backend_ref best{};
    std::uint64_t best_load = 0;
    std::uint64_t best_weight = 1;
    std::uint32_t at = sluice_slot(c.hash, count);
    for (std::uint32_t n = 0; n < count; ++n) {
      if (at >= count) at = 0;
      const abi::backend_ref ref = c.view.member(c.service, at++);
      const std::uint64_t load = std::uint64_t{c.loads.of(ref.index())} + 1;
      const std::uint64_t weight = Weighted ? weight_of(c.view, ref) : 1;
      // load / weight < best_load / best_weight; below 2^33 and 2^21.
      if (best.none() || load * best_weight < best_load * weight) {
        best = ref;
        best_load = load;
        best_weight = weight;
      }
    }
    return best;
  }

 private:
  static std::uint64_t weight_of(const abi::config_view& view, abi::backend_ref ref) noexcept {
    const abi::backend_row* row = view.backend_at(ref.index());
    return row == nullptr ? 1 : std::clamp<std::uint32_t>(row->weight, 1, 1u << 21);
  }
};

}  // namespace sluice
