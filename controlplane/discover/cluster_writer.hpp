// SPDX-License-Identifier: Apache-2.0
// cluster_writer: what is written back to a cluster: the VIPs into the status of Services, and
// Events about those that cannot be as they want to. One request at a time. Threading: the loop's
// thread.
#pragma once

#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "controlplane/discover/cluster_service.hpp"
#include "controlplane/discover/kubernetes_watch.hpp"

namespace sluice::discover {

class cluster_writer {
 public:
  struct status {
    std::string version;  // of the Service that it is for
    std::vector<std::string> addresses;

    bool operator==(const status&) const = default;
  };

  cluster_writer(event_loop& loop, api_access access);
  ~cluster_writer();
  cluster_writer(const cluster_writer&) = delete;
  cluster_writer& operator=(const cluster_writer&) = delete;

  // set() says what has to be written, by key of Services; what was to be before and is not is
  // forgotten.
  void set(std::map<std::string, status> wanted);
  // warn() has an Event follow; where it cannot be written, the log has said it.
  void warn(const cluster_service& about, const std::string& message);
  void stop();
  // problem() says why something could not be written; empty: it could.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  struct event {
    std::string space;
    std::string body;
  };
  void next();
  void answered(const std::string& key, const status& written, const http_response& r);
  void wait();
  [[nodiscard]] bool send(http_request r, http_client::on_done done);

  event_loop& loop_;
  const api_access access_;
  http_client client_;
  bool busy_{false};
  std::map<std::string, status> wanted_;
  std::set<std::string> failed_;  // keys, since the last wait: the others go first
  std::deque<event> events_;
  std::string problem_;
  unsigned failures_{0};  // in a row
  event_loop::timer_id timer_{0};
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace sluice::discover
