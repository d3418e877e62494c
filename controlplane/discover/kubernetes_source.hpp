// SPDX-License-Identifier: Apache-2.0
// kubernetes_source: backends from the EndpointSlices of a Service, listed and watched. Where the
// service in services.yaml names a load balancer class, its VIP is written into the status of the
// Service if that is of this class.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/discover/http_client.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"
#include "controlplane/discover/kubernetes_watch.hpp"
#include "controlplane/discover/source.hpp"

namespace sluice::discover {

class kubernetes_source final : public source {
 public:
  kubernetes_source(event_loop& loop, question q, on_report report_to);
  ~kubernetes_source() override;
  void start() override;
  void stop() override;

 private:
  void settled();
  void look_at_status();
  void write_status(const http_response& r);
  void tell_status(const std::string& why);
  [[nodiscard]] std::string service_url() const;

  event_loop& loop_;
  const question question_;
  on_report report_to_;
  const slice_wish wish_;
  const api_access access_;
  std::string space_;  // namespace
  std::string name_;
  slices slices_;
  slices listed_;                            // as far as a list has come
  std::optional<std::vector<found>> known_;  // as reported
  http_client status_client_;
  bool started_{false};
  event_loop::timer_id status_timer_{0};
  std::string status_problem_;
  std::unique_ptr<kubernetes_watch> watch_;  // after what it uses
};

}  // namespace sluice::discover
