// SPDX-License-Identifier: Apache-2.0
// What backends are asked for, or say of their own accord, beside health checks; how far that
// moves their weights; and how much of a service has to be able to serve. Values.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sluice::model {

// A connection to each backend, which answers with a line of HAProxy's agent-check words.
// Off with port 0.
struct agent_check {
  std::uint16_t port{0};
  std::string send;  // what it is sent first
  std::chrono::milliseconds interval{2000};
  std::chrono::milliseconds timeout{1000};

  [[nodiscard]] bool off() const noexcept { return port == 0; }
  bool operator==(const agent_check&) const = default;
};

// Backends tell the API that they are alive, and their load if they like. Off with interval 0.
struct heartbeat {
  std::chrono::milliseconds interval{0};
  std::uint8_t missing{3};  // so many intervals without one are a failure

  [[nodiscard]] bool off() const noexcept { return interval.count() == 0; }
  [[nodiscard]] std::chrono::milliseconds patience() const noexcept { return interval * missing; }
  bool operator==(const heartbeat&) const = default;
};

// How the weights that backends ask for become those that they have. In per cent of the
// configured weight.
struct weight_steering {
  std::chrono::milliseconds smoothing{10'000};  // time constant; 0: none
  std::uint8_t dead_band{5};                    // what differs by less is left as it is
  std::uint8_t max_step{25};                    // at once
  std::chrono::milliseconds interval{2000};     // from one step to the next

  bool operator==(const weight_steering&) const = default;
};

// When a service's address is to be announced. In per cent of the weight of one tier's backends
// that are wanted.
struct quorum {
  std::uint8_t percent{0};            // 0: somebody who can serve
  std::uint8_t hysteresis{0};         // so much more to announce again what was withdrawn
  std::chrono::milliseconds hold{0};  // for so long

  bool operator==(const quorum&) const = default;
};

}  // namespace sluice::model
