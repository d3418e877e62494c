// SPDX-License-Identifier: Apache-2.0
// round_robin, weighted_round_robin: the slots one after the other. The table is one cycle:
// every member once, or the smooth sequence of the weights. Every worker goes round on its
// own, from a slot of its own, so that they do not all begin with the first member; among the
// connections of one worker the turns are exact.
#pragma once

#include "dataplane/path/schedule/context.hpp"

namespace sluice {

struct in_turn {
  static abi::backend_ref pick(const schedule_context& c) noexcept {
    const std::uint32_t size = c.service.table_size;
    std::uint32_t turn = c.state.turn;
    if (turn == service_state::not_begun) turn = sluice_slot(c.random.next(), size);
    if (turn >= size) turn = 0;
    c.state.turn = turn + 1;
    return c.in_slot(turn);
  }
};

}  // namespace sluice
