// SPDX-License-Identifier: Apache-2.0
// steer(): from the weights that a service's backends ask for to those that they get, so that
// tables do not change with every report. Pure; weights are parts of the configured one.
//
// 1. What is asked for is smoothed (exponentially, by the time that passes, not by how often it
//    is reported).
// 2. The weight in use is changed when it differs from that by the dead band at least, by the
//    largest step at most, to half a band short of it (a load that follows the weight comes to
//    rest so, instead of swinging); a request for the whole weight is met exactly in the end.
// 3. All backends of a service change at the same moments, `interval` apart at least, on a grid
//    that all services share: tables are built at a rate that does not depend on how many
//    backends report, and how often.
// 4. No weight at all is taken at its word, at once: the backend wants no new connections.
// 5. A backend begins with its whole weight, and has it again when it asks for nothing more.
//
// Any thread; no shared state.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "controlplane/model/reports.hpp"

namespace sluice::decision {

using time_point = std::chrono::steady_clock::time_point;

inline constexpr std::chrono::milliseconds steering_grid{250};
inline constexpr double largest_part = 10;  // of the configured weight

struct steered {
  double asked{1};     // last
  double smoothed{1};  // as of `at`
  double used{1};
  time_point at{};

  bool operator==(const steered&) const = default;
};

struct steering_memory {
  std::optional<time_point> next;  // step; nothing: none is due
  time_point stepped{};            // last; none: time 0

  bool operator==(const steering_memory&) const = default;
};

// steer() brings `backends` up to date; those that ask for nothing lose their memory. It
// returns when to be asked again.
[[nodiscard]] std::optional<time_point> steer(const model::weight_steering& how,
                                              std::span<const std::optional<double>> asked,
                                              std::span<std::optional<steered>> backends,
                                              steering_memory& service, time_point now);

}  // namespace sluice::decision
