// SPDX-License-Identifier: Apache-2.0
#include "controlplane/metrics/exporter.hpp"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>

namespace sluice::metrics {

class exporter::impl {
 public:
  impl(const std::string& address, reconcile::controller& controller)
      : collector_{std::make_shared<collector>(controller)}, exposer_{address, 2} {
    exposer_.RegisterCollectable(collector_);
  }

 private:
  class collector final : public prometheus::Collectable {
   public:
    explicit collector(reconcile::controller& c) : controller_{c} {}
    std::vector<prometheus::MetricFamily> Collect() const override { return collect(controller_); }

   private:
    reconcile::controller& controller_;
  };
  std::shared_ptr<collector> collector_;
  prometheus::Exposer exposer_;
};

exporter::exporter(std::unique_ptr<impl> i) : impl_{std::move(i)} {}
exporter::~exporter() = default;

tl::expected<std::unique_ptr<exporter>, std::string> exporter::listen(
    const ip_port& at, reconcile::controller& controller) {
  const std::string address = format_ip_port(at);
  try {
    return std::unique_ptr<exporter>{new exporter{std::make_unique<impl>(address, controller)}};
  } catch (const std::exception& e) {
    return tl::unexpected{"metrics cannot listen on " + address + ": " + e.what() +
                          " (controlplane.metrics.listen; is the port taken?)"};
  }
}

}  // namespace sluice::metrics
