// SPDX-License-Identifier: Apache-2.0
// consul_source: backends from Consul's HTTP API, by blocking queries: each is answered when
// something has changed, or after five minutes. After a failure it asks without waiting, after
// min-interval, then twice as long each time.
#pragma once

#include <random>

#include "controlplane/discover/consul_reply.hpp"
#include "controlplane/discover/http_client.hpp"
#include "controlplane/discover/source.hpp"

namespace sluice::discover {

class consul_source final : public source {
 public:
  consul_source(event_loop& loop, question q, on_report report_to);
  ~consul_source() override;
  void start() override;
  void stop() override;

 private:
  void ask();
  void ask_after(std::chrono::milliseconds wait);
  void answered(const http_response& r);
  [[nodiscard]] std::string url() const;

  event_loop& loop_;
  const question question_;
  on_report report_to_;
  http_client client_;
  consul_index index_;
  bool started_{false};
  event_loop::timer_id timer_{0};
  unsigned failures_{0};  // in a row
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace sluice::discover
