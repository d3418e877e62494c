// SPDX-License-Identifier: Apache-2.0
// A check by a program: its exit code. It runs in a process group of its own, which is killed
// when the check ends; without our descriptors, with /dev/null and an environment that says
// whom it is about.
#pragma once

#include <sys/types.h>

#include <optional>

#include "controlplane/health/attempt.hpp"

namespace sluice::health {

class command_attempt final : public attempt {
 public:
  command_attempt(const target& t, const probe_tools& tools) noexcept
      : target_{t}, tools_{tools}, loop_{tools.loop} {}
  ~command_attempt() override;

  [[nodiscard]] std::optional<probe_result> start(done_callback done) override;
  [[nodiscard]] probe_result timed_out() override;

 private:
  void on_exit();
  // reap() is the result of a program that has ended.
  [[nodiscard]] std::optional<probe_result> reap();

  const target& target_;
  const probe_tools& tools_;
  event_loop& loop_;
  done_callback done_;
  pid_t pid_{-1};
  int fd_{-1};  // of the process
};

// judge_exit() is what an exit code says: 0 up, 1 down; with `weights`, 2 to 255 up with the
// weight code - 2 (keepalived's misc_dynamic), otherwise down.
[[nodiscard]] probe_result judge_exit(int code, bool weights);

}  // namespace sluice::health
