// SPDX-License-Identifier: Apache-2.0
// random, weighted_random: any slot. Every member once in the table, or in proportion to the
// weights. The slot is found by multiplication: off from uniform by less than 2^-8 of a slot
// for a table of 2^24.
#pragma once

#include "dataplane/path/schedule/context.hpp"

namespace sluice {

struct at_random {
  static abi::backend_ref pick(const schedule_context& c) noexcept {
    return c.in_slot(sluice_slot(c.random.next(), c.service.table_size));
  }
};

}  // namespace sluice
