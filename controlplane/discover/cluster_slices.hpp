// SPDX-License-Identifier: Apache-2.0
// cluster_slices: the EndpointSlices of all Services of a cluster that somebody asks for, by one
// watch (of each namespace that is watched), however many they are. Threading: the loop's thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controlplane/discover/kubernetes_watch.hpp"
#include "controlplane/discover/source.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::discover {

class cluster_slices {
 public:
  cluster_slices(event_loop& loop, const kubernetes_config& config);
  ~cluster_slices();
  cluster_slices(const cluster_slices&) = delete;
  cluster_slices& operator=(const cluster_slices&) = delete;

  // source_for() is null where a question is not about this cluster. What it returns must not
  // outlive this.
  [[nodiscard]] std::unique_ptr<source> source_for(const question& q, on_report report_to);

 private:
  class shared_source;
  struct part {
    std::string space;  // empty: all
    slices fresh;       // as far as a list has come
    std::unique_ptr<kubernetes_watch> watch;
    bool listed{false};
  };
  void add(shared_source& s);
  void remove(shared_source& s);
  void watch_soon();
  void watch_all();
  void watch_part(part& p, const std::string& selector);
  [[nodiscard]] tl::expected<list_page, std::string> take_page(part& p, std::string_view body,
                                                               bool first);
  [[nodiscard]] watch_line take_line(std::string_view line);
  void put(const std::string& slice, endpoint_slice one);
  void drop(const std::string& slice);
  void settled(part& p);
  void failed(part& p, const std::string& why);
  [[nodiscard]] part& part_of(const std::string& service);

  event_loop& loop_;
  const kubernetes_config& config_;
  std::vector<std::unique_ptr<part>> parts_;
  std::map<std::string, std::set<shared_source*>> asked_;  // by Service
  std::map<std::string, slices> known_;                    // by Service
  std::map<std::string, std::string> service_of_;          // by slice
  std::set<std::string> changed_;                          // Services, since they were settled
  std::set<std::string> covered_;                          // Services whose slices are watched
  event_loop::timer_id timer_{0};
};

}  // namespace sluice::discover
