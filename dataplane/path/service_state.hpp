// SPDX-License-Identifier: Apache-2.0
// What a worker remembers of a service between packets. By row number, and kept when the row
// changes hands: whatever is left over in it is gone after a second or a turn.
#pragma once

#include <cstdint>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/path/rate_limit.hpp"

namespace sluice {

struct alignas(cache_line) service_state {
  static constexpr std::uint32_t not_begun = 0xffffffff;

  rate_limit connections;
  rate_limit packets;
  syn_meter syns;
  std::uint32_t turn{not_begun};  // round robin: the slot whose turn it is
  bool loads_watched{false};      // connection_loads knows the service
};
static_assert(sizeof(service_state) == cache_line);

}  // namespace sluice
