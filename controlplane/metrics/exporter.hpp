// SPDX-License-Identifier: Apache-2.0
// exporter: Prometheus metrics over HTTP. Reads the observation segment and the published
// tables at each scrape; nothing is counted twice. Names, units: docs/metrics.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <prometheus/metric_family.h>
#include <tl/expected.hpp>

#include "controlplane/reconcile/controller.hpp"

namespace sluice::metrics {

// collect() makes all metrics of one scrape. Any thread but the loop's.
[[nodiscard]] std::vector<prometheus::MetricFamily> collect(reconcile::controller& controller);

class exporter {
 public:
  // listen() serves GET /metrics until it is destroyed (not on the loop's thread).
  [[nodiscard]] static tl::expected<std::unique_ptr<exporter>, std::string> listen(
      const ip_port& at, reconcile::controller& controller);
  ~exporter();
  exporter(const exporter&) = delete;
  exporter& operator=(const exporter&) = delete;

 private:
  class impl;
  explicit exporter(std::unique_ptr<impl> i);
  std::unique_ptr<impl> impl_;
};

}  // namespace sluice::metrics
