// SPDX-License-Identifier: Apache-2.0
// maglev, ring_hash, partitioned_hash, source_hash: the slot that a hash names
// (abi/stateless_choice.hpp). They differ in how the control plane fills the table, and
// source_hash in what is hashed; all workers and all nodes agree without a word.
#pragma once

#include "dataplane/abi/stateless_choice.hpp"
#include "dataplane/path/schedule/context.hpp"

namespace sluice {

struct by_hash {
  [[nodiscard]] static bool is(abi::scheduler kind) noexcept {
    return kind <= abi::scheduler::source_hash;
  }
  static abi::backend_ref pick(const schedule_context& c) noexcept {
    return c.in_slot(sluice_slot(c.hash, c.service.table_size));
  }
};

}  // namespace sluice
