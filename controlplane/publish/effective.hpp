// SPDX-License-Identifier: Apache-2.0
// effective(): from what is wanted of a service and what is known of its backends to
// what the workers shall use. Pure.
//
// - A backend can serve when it is enabled, has weight, is up (or is not checked) and its
//   next hop is known. One that was never probed is not up.
// - New connections go to the lowest-numbered tier that has a backend that can serve.
// - Panic: when no backend of any tier can serve, health is ignored: the service behaves
//   as if all its backends were up. When no next hop is known either, those are ignored
//   too, and the drops are counted under their name.
// - mss-clamp auto is what fits the narrowest path to a backend (of those whose next hop is
//   known), after encapsulation and without TCP options.
// - A backend that is down loses its connections, unless it is in the table (panic). A
//   drained one keeps them and takes no new ones.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "controlplane/model/model.hpp"
#include "controlplane/publish/published_state.hpp"

namespace sluice::publish {

// condition: what is known of one backend.
struct condition {
  abi::shown_health health{abi::shown_health::unknown};
  std::optional<hop> next_hop;
};

// `conditions` has one element for each of the service's backends, in their order.
[[nodiscard]] published_service effective(const model::service& service,
                                          std::span<const condition> conditions);

// panics() tells whether new connections go to backends that cannot serve.
[[nodiscard]] bool panics(const published_service& service) noexcept;

}  // namespace sluice::publish
