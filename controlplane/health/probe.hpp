// SPDX-License-Identifier: Apache-2.0
// probe: one check of one target at a time, from its start to the result. The owner keeps the
// time: it calls timed_out() when the target's timeout has passed.
// Threading: the loop's thread.
#pragma once

#include <memory>
#include <optional>

#include "controlplane/health/attempt.hpp"

namespace sluice::health {

class probe {
 public:
  using done_callback = attempt::done_callback;

  explicit probe(probe_tools& tools) noexcept : tools_{tools} {}
  probe(const probe&) = delete;
  probe& operator=(const probe&) = delete;

  // start() begins a check; `t` must outlive it. A result that is known at once is
  // returned; otherwise done is called with it later, once, by the loop.
  [[nodiscard]] std::optional<probe_result> start(const target& t, done_callback done);
  // stop() ends the check without a result.
  void stop() noexcept { attempt_.reset(); }
  // timed_out() ends the check and words the result.
  [[nodiscard]] probe_result timed_out();
  [[nodiscard]] bool running() const noexcept { return attempt_ != nullptr; }

 private:
  probe_tools& tools_;
  std::unique_ptr<attempt> attempt_;
};

}  // namespace sluice::health
