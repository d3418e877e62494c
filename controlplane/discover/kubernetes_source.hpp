// SPDX-License-Identifier: Apache-2.0
// kubernetes_source: backends from the EndpointSlices of a Service: listed, then watched; listed
// again when what was watched from is too old (410), or a watch has failed. Where the service in
// services.yaml names a load balancer class, its VIP is written into the status of the Service if
// that is of this class.
#pragma once

#include <random>
#include <string>

#include "controlplane/discover/http_client.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"
#include "controlplane/discover/source.hpp"

namespace sluice::discover {

class kubernetes_source final : public source {
 public:
  kubernetes_source(event_loop& loop, question q, on_report report_to);
  ~kubernetes_source() override;
  void start() override;
  void stop() override;

 private:
  void list_after(std::chrono::milliseconds wait);
  void list();
  void listed(const http_response& r);
  void watch_after(std::chrono::milliseconds wait);
  void watch();
  // saw() is false when the watch is over.
  [[nodiscard]] bool saw(std::string_view line);
  void watch_ended(const http_response& r);
  void failed(std::string why);
  void look_at_status();
  void write_status(const http_response& r);
  void tell_status(const std::string& why);
  [[nodiscard]] bool prepare(http_request& r, std::string& error) const;
  [[nodiscard]] std::string slices_url() const;
  [[nodiscard]] std::string service_url() const;

  event_loop& loop_;
  const question question_;
  on_report report_to_;
  const slice_wish wish_;
  std::string space_;  // namespace
  std::string name_;
  http_client client_;
  http_client status_client_;
  bool started_{false};
  slices slices_;
  std::string version_;
  std::string line_;  // of a watch, as far as it has come
  event_loop::timer_id timer_{0};
  event_loop::timer_id status_timer_{0};
  unsigned failures_{0};  // in a row
  std::string status_problem_;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace sluice::discover
