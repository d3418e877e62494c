// SPDX-License-Identifier: Apache-2.0
// reader_watch: what the writer must know of the readers of its segment.
#pragma once

#include <array>
#include <cstdint>

namespace sluice::publish {

// Sums over workers of one row of counters, in the order of the abi's struct.
using counter_sums = std::array<std::uint64_t, 5>;

// Called by the writer's thread only. This class itself: a segment without readers
// (memory, tests).
class reader_watch {
 public:
  virtual ~reader_watch() = default;
  // quiescent() tells whether no reader can still use a generation older than `number`.
  // Looks for new readers first; the caller has stored the current generation before.
  [[nodiscard]] virtual bool quiescent(std::uint64_t /*number*/) { return true; }
  // instance() names the counters that the sums are of; 0: there are none.
  [[nodiscard]] virtual std::uint64_t instance() const { return 0; }
  [[nodiscard]] virtual counter_sums service_sums(std::uint32_t /*row*/) const { return {}; }
  [[nodiscard]] virtual counter_sums backend_sums(std::uint32_t /*row*/) const { return {}; }
};

}  // namespace sluice::publish
