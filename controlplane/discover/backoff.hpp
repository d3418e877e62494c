// SPDX-License-Identifier: Apache-2.0
// retry_after() is how long to wait after so many failures in a row: twice as long each time, and
// up to a tenth more, so that a fleet does not ask at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

#include "controlplane/model/discovery.hpp"

namespace sluice::discover {

[[nodiscard]] inline std::chrono::milliseconds retry_after(std::chrono::milliseconds shortest,
                                                           std::chrono::milliseconds longest,
                                                           unsigned failures,
                                                           std::minstd_rand& random) {
  const auto wait = std::min(shortest * (1 << std::min(failures, 10u)), longest);
  std::uniform_int_distribution<std::int64_t> more{0, wait.count() / 10};
  return wait + std::chrono::milliseconds{more(random)};
}

[[nodiscard]] inline std::chrono::milliseconds retry_after(const model::discovery& what,
                                                           unsigned failures,
                                                           std::minstd_rand& random) {
  return retry_after(what.min_interval, what.max_interval, failures, random);
}

}  // namespace sluice::discover
