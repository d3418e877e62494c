// SPDX-License-Identifier: Apache-2.0
// Whether an operator has taken this node out: it forwards what comes, and announces nothing. No
// part of the desired state, which other nodes may share. Outlives a restart.
#pragma once

#include <chrono>
#include <string>

#include "controlplane/reconcile/state_keeper.hpp"

namespace sluice::reconcile {

struct node_drain {
  bool drained{false};
  // Of the last drain or undrain.
  std::chrono::system_clock::time_point time{};
  std::string author;
  std::string reason;
};

[[nodiscard]] node_drain load_node_drain(state_keeper& keeper);
[[nodiscard]] store::result<void> save_node_drain(state_keeper& keeper, const node_drain& drain);

}  // namespace sluice::reconcile
