// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/probe.hpp"

#include <utility>

namespace sluice::health {

std::optional<probe_result> probe::start(const target& t, done_callback done) {
  attempt_ = make_attempt(t, tools_);
  auto result = attempt_->start([this, done = std::move(done)](probe_result r) {
    // This function goes with the attempt.
    const done_callback tell = done;
    attempt_.reset();
    tell(std::move(r));
  });
  if (result) attempt_.reset();
  return result;
}

probe_result probe::timed_out() {
  probe_result result = attempt_->timed_out();
  attempt_.reset();
  return result;
}

}  // namespace sluice::health
