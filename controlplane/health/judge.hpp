// SPDX-License-Identifier: Apache-2.0
// judge: turns the results of probes into a state by rise and fall. Pure.
#pragma once

#include <cstdint>
#include <limits>

#include "controlplane/health/health_checker.hpp"

namespace sluice::health {

class judge {
 public:
  judge() = default;
  // A seed is a state that no probe has confirmed yet.
  explicit judge(health_state seed) noexcept : state_{seed} {}

  // record() takes one result; true when there is a verdict to tell: a transition, or
  // the first result that confirms a seed. rise and fall of 0 count as 1.
  bool record(bool ok, std::uint32_t rise, std::uint32_t fall) noexcept {
    if (consecutive_ == 0 || ok != last_ok_) consecutive_ = 0;
    if (consecutive_ < std::numeric_limits<std::uint32_t>::max()) ++consecutive_;
    last_ok_ = ok;
    const health_state seen = ok ? health_state::up : health_state::down;
    if (state_ == seen) {
      const bool first = !confirmed_;
      confirmed_ = true;
      return first;
    }
    if (state_ != health_state::unknown && consecutive_ < (ok ? rise : fall)) return false;
    state_ = seen;
    confirmed_ = true;
    return true;
  }

  // in_doubt() is true while the last result contradicts the state.
  [[nodiscard]] bool in_doubt() const noexcept {
    return consecutive_ != 0 && state_ == (last_ok_ ? health_state::down : health_state::up);
  }
  [[nodiscard]] health_state state() const noexcept { return state_; }
  [[nodiscard]] bool confirmed() const noexcept { return confirmed_; }
  [[nodiscard]] bool last_ok() const noexcept { return last_ok_; }
  [[nodiscard]] std::uint32_t consecutive() const noexcept { return consecutive_; }

 private:
  health_state state_{health_state::unknown};
  bool confirmed_{false};
  bool last_ok_{false};
  std::uint32_t consecutive_{0};
};

}  // namespace sluice::health
