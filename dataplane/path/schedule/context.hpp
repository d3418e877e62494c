// SPDX-License-Identifier: Apache-2.0
// The interface of the schedulers. A scheduler is a struct with one function,
//
//   static abi::backend_ref pick(const schedule_context&) noexcept;
//
// which names the backend of a new connection; none when a table is impossible. schedule.hpp
// has the list. Runs once per new connection, in the worker.
#pragma once

#include <cstdint>

#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/path/schedule/connection_loads.hpp"
#include "dataplane/path/service_state.hpp"

namespace sluice {

// random_bits: splitmix64 (Steele, Lea, Flood, OOPSLA 2014). For spreading load, not for
// secrets.
class random_bits {
 public:
  explicit random_bits(std::uint64_t seed) noexcept : state_{seed} {}
  std::uint64_t next() noexcept { return sluice_mix64(state_ += 0x9e3779b97f4a7c15ull); }

 private:
  std::uint64_t state_;
};

struct schedule_context {
  const abi::config_view& view;
  const abi::service_row& service;
  std::uint64_t hash;    // of the flow, or of the source where the service goes by that
  service_state& state;  // this worker's
  random_bits& random;   // this worker's
  connection_loads& loads;

  // in_slot() is the backend that a slot of the service's table names.
  [[nodiscard]] abi::backend_ref in_slot(std::uint32_t slot) const noexcept {
    return view.in_slot(service, slot);
  }
};

}  // namespace sluice
