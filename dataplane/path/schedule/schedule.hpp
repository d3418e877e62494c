// SPDX-License-Identifier: Apache-2.0
// Which scheduler a service has. A switch, taken once per new connection.
#pragma once

#include "dataplane/path/schedule/at_random.hpp"
#include "dataplane/path/schedule/by_hash.hpp"
#include "dataplane/path/schedule/fewest_connections.hpp"
#include "dataplane/path/schedule/in_turn.hpp"

namespace sluice {

// schedule() names the backend of a new connection; none: a table is impossible.
[[nodiscard]] inline abi::backend_ref schedule(abi::scheduler kind,
                                               const schedule_context& c) noexcept {
  switch (kind) {
    case abi::scheduler::round_robin:
    case abi::scheduler::weighted_round_robin:
      return in_turn::pick(c);
    case abi::scheduler::random:
    case abi::scheduler::weighted_random:
      return at_random::pick(c);
    case abi::scheduler::least_connections:
      return fewest_connections<false>::pick(c);
    case abi::scheduler::weighted_least_connections:
      return fewest_connections<true>::pick(c);
    case abi::scheduler::none:
    case abi::scheduler::maglev:
    case abi::scheduler::ring_hash:
    case abi::scheduler::partitioned_hash:
    case abi::scheduler::source_hash:
    case abi::scheduler::count_:
      break;
  }
  return by_hash::pick(c);
}

}  // namespace sluice
