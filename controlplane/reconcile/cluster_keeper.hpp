// SPDX-License-Identifier: Apache-2.0
// cluster_keeper: has the desired state hold what the Services of a cluster stand for, as revisions
// by "kubernetes", and the cluster know it: VIPs in the status of Services, Events about those that
// cannot be. What the services' backends are is found as for any service that discovers.
//
// Threading: made, started and destroyed on the loop's thread. Changes are made by a thread of its
// own, as they wait for the disk; stop() waits for that, so not on the loop's thread while it runs.
// problems() and status(): the loop's thread.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/discover/cluster_plan.hpp"
#include "controlplane/discover/cluster_source.hpp"
#include "controlplane/discover/cluster_writer.hpp"
#include "controlplane/loop/event_loop.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::reconcile {

// remove_cluster_services() takes out what a cluster had that is not configured any more. Before
// the loop runs.
[[nodiscard]] tl::expected<void, std::string> remove_cluster_services(controller& c);

class cluster_keeper {
 public:
  cluster_keeper(event_loop& loop, controller& c, const kubernetes_config& config,
                 model::service common);
  ~cluster_keeper();
  cluster_keeper(const cluster_keeper&) = delete;
  cluster_keeper& operator=(const cluster_keeper&) = delete;

  void start();
  void stop();

  [[nodiscard]] std::vector<std::string> problems() const;
  [[nodiscard]] std::vector<discover::source_status> status() const { return source_.status(); }

 private:
  struct work {  // what the thread is given
    discover::cluster_services services;
    std::set<std::string> listed;
  };
  struct outcome {
    model::desired_state state;
    std::map<std::string, std::string> problems;  // by key
  };
  void on_news();
  void run();
  [[nodiscard]] std::optional<outcome> change(const work& w);
  void one_by_one(const discover::cluster_plan& plan, outcome& out);
  void done(outcome result);
  void write_back();

  event_loop& loop_;
  controller& controller_;
  const kubernetes_config& config_;
  const model::service common_;
  discover::cluster_source source_;
  discover::cluster_writer writer_;
  event_loop::timer_id news_timer_{0};
  event_loop::timer_id again_timer_{0};
  std::optional<outcome> last_;
  std::map<std::string, std::set<std::string>> given_;  // VIPs that Services have had, by key

  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<work> next_;  // guarded by mutex_, as stop_
  bool stop_{false};
  std::thread thread_;
};

}  // namespace sluice::reconcile
