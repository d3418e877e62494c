// SPDX-License-Identifier: Apache-2.0
// cluster_source: the Services of a cluster, of all namespaces or of some, listed and watched.
// Threading: the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controlplane/discover/cluster_service.hpp"
#include "controlplane/discover/keeper.hpp"
#include "controlplane/discover/kubernetes_watch.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::discover {

class cluster_source {
 public:
  // on_news: after each list and each change that matters here.
  cluster_source(event_loop& loop, const kubernetes_config& config, std::function<void()> on_news);
  cluster_source(const cluster_source&) = delete;
  cluster_source& operator=(const cluster_source&) = delete;

  void start();
  void stop();
  [[nodiscard]] const cluster_services& services() const noexcept { return services_; }
  // listed() are the namespaces that have been listed; "": all.
  [[nodiscard]] const std::set<std::string>& listed() const noexcept { return listed_; }
  // One of each namespace that is watched; backends: Services for us.
  [[nodiscard]] std::vector<source_status> status() const;

 private:
  struct part {
    std::string space;       // empty: all
    cluster_services fresh;  // as far as a list has come
    source_status status;
    bool news{true};
    std::unique_ptr<kubernetes_watch> watch;
  };
  [[nodiscard]] tl::expected<list_page, std::string> take_page(part& p, std::string_view body,
                                                               bool first);
  [[nodiscard]] watch_line take_line(part& p, std::string_view line);
  void settled(part& p);
  void failed(part& p, std::string why);

  const kubernetes_config& config_;
  std::function<void()> on_news_;
  cluster_services services_;
  std::set<std::string> listed_;
  std::vector<std::unique_ptr<part>> parts_;
};

}  // namespace sluice::discover
