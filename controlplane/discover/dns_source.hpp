// SPDX-License-Identifier: Apache-2.0
// dns_source: backends from A, AAAA or SRV records, by c-ares on the event loop. Asked again when
// the shortest TTL has passed, within min-interval and max-interval, a little later at random
// so that a fleet does not ask at once; after a failure, after min-interval, then twice as long
// each time.
// SRV: the lowest priority is tier 0, the next one tier 1, and so on; a weight of 0 becomes 1,
// or where all of a priority are 0, the service's own default. All targets have to resolve.
#pragma once

#include <chrono>
#include <memory>
#include <random>

#include "controlplane/discover/source.hpp"

namespace sluice::discover {

class dns_lookup;

class dns_source final : public source {
 public:
  dns_source(event_loop& loop, question q, on_report report_to);
  ~dns_source() override;
  void start() override;
  void stop() override;

 private:
  void ask();
  void ask_after(std::chrono::milliseconds wait);

  event_loop& loop_;
  const question question_;
  on_report report_to_;
  std::unique_ptr<dns_lookup> lookup_;  // null: none runs
  event_loop::timer_id timer_{0};
  unsigned failures_{0};  // in a row
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace sluice::discover
