// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "controlplane/schedule/schedule.hpp"

namespace sluice::schedule {

void build_turns(std::span<const member>, std::span<std::uint16_t> table) {
  std::iota(table.begin(), table.end(), std::uint16_t{0});
}

}  // namespace sluice::schedule
