// SPDX-License-Identifier: Apache-2.0
// effective(): from what is wanted of a service, what is known of its backends and what was
// decided (controlplane/decision) to what the workers shall use. Pure.
//
// mss-clamp auto is what fits the narrowest path to a backend (of those whose next hop is
// known), after encapsulation and without TCP options.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "controlplane/decision/decision.hpp"
#include "controlplane/model/model.hpp"
#include "controlplane/publish/published_state.hpp"

namespace sluice::publish {

// condition: what is known of one backend.
struct condition {
  abi::shown_health health{abi::shown_health::unknown};
  std::optional<hop> next_hop;
  std::optional<std::uint32_t> weight{};  // reported by its check
  // What it says of itself (decision::finding).
  std::optional<double> asked{};
  decision::wish wish{decision::wish::none};
  bool unfit{false};
  bool unheard{false};  // it shall say that it is alive, and never did
  bool full{false};     // has as many connections as it may

  bool operator==(const condition&) const = default;
};

// health_of() is what counts as a backend's health, and is shown.
[[nodiscard]] abi::shown_health health_of(const model::service& service, const model::backend& b,
                                          const condition& c) noexcept;

// `conditions` has one element for each of the service's backends, in their order.
[[nodiscard]] decision::verdict decide(const model::service& service,
                                       std::span<const condition> conditions,
                                       const decision::memory& before, decision::time_point now);
[[nodiscard]] published_service effective(const model::service& service,
                                          std::span<const condition> conditions,
                                          const decision::verdict& decided);
// Without anything decided before.
[[nodiscard]] published_service effective(const model::service& service,
                                          std::span<const condition> conditions);

// panics() tells whether new connections go to backends that cannot serve.
[[nodiscard]] bool panics(const published_service& service) noexcept;

}  // namespace sluice::publish
