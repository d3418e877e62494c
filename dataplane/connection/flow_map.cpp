// SPDX-License-Identifier: Apache-2.0
// The connection table's code, once, built like the packet path.
#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection {

template <class Family>
flow_map<Family>::flow_map(void* memory, std::uint64_t count,
                           const std::array<std::uint64_t, 2>& secret,
                           instruction_set instructions) noexcept
    : buckets_{static_cast<bucket*>(memory)},
      count_{count},
      hasher_{secret},
      instructions_{instructions},
      find_{bulk_find<Family>(instructions)},
      insert_{instructions == instruction_set::scalar ? insert_scalar : insert_avx2},
      victim_{victim_finder<Family>(instructions)},
      nearly_full_from_{count * per_bucket / 16 * 15},
      all_hold_on_from_{count * per_bucket - count * per_bucket / 64} {
  set_timeouts(abi::default_timeouts);
}

template class flow_map<ipv4>;
template class flow_map<ipv6>;

}  // namespace sluice::connection
