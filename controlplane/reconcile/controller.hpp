// SPDX-License-Identifier: Apache-2.0
// controller: the one owner of the desired state, what health checks and the kernel say
// about it, and what is therefore published to the workers.
//
// - A change is validated, committed to the state file, then published. What is refused
//   leaves everything as it was. A service that a change does not concern is not touched.
// - Verdicts and next hops that arrive together share a generation (publication.hpp).
// - After a restart it goes on with the live segment: row numbers, tables, counter bases
//   and health verdicts (then those of the state file) are taken over.
//
// Threading: made, started and destroyed on the loop's thread; "any thread" below means
// any but the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/config/config.hpp"
#include "controlplane/decision/decision.hpp"
#include "controlplane/discover/cluster_slices.hpp"
#include "controlplane/discover/keeper.hpp"
#include "controlplane/events/event_log.hpp"
#include "controlplane/health/health_checker.hpp"
#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/text.hpp"
#include "controlplane/publish/observations.hpp"
#include "controlplane/publish/shown_tables.hpp"
#include "controlplane/reconcile/admin_log.hpp"
#include "controlplane/reconcile/announcer.hpp"
#include "controlplane/reconcile/backend_reports.hpp"
#include "controlplane/reconcile/list_keeper.hpp"
#include "controlplane/reconcile/next_hops.hpp"
#include "controlplane/reconcile/node_drain.hpp"
#include "controlplane/reconcile/probe_path.hpp"
#include "controlplane/reconcile/publication.hpp"
#include "controlplane/reconcile/service_runtime.hpp"
#include "controlplane/reconcile/state_keeper.hpp"
#include "controlplane/reconcile/steering.hpp"
#include "controlplane/reconcile/suspects.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

struct snapshot {
  std::uint64_t revision{};
  std::uint64_t generation{};
  bool published{};  // false: newer than the workers' generation, being retried
  std::vector<std::shared_ptr<const service_runtime>> services;  // sorted by name
  publish::shown_tables tables;                                  // read back from the segment
  std::uint64_t base_instance{};  // observations that the tables' counter bases are of
  std::uint64_t segment_instance{};
  std::vector<std::string> warnings;
  admin_log::entries admin;    // who drained or forced what
  node_drain drain;            // of this node
  announcer::shown announced;  // by VIP; empty: nothing is announced from here
};

enum class refusal : std::uint8_t { invalid, not_found, conflict, failed, busy };

struct change_error {
  refusal why{refusal::invalid};
  std::vector<config_error> errors;
};

struct change_answer {
  std::uint64_t revision{};
  std::vector<model::change> changes;
};

// An edit makes the next desired state from the current one.
using edit = std::function<tl::expected<model::desired_state, change_error>(
    const model::desired_state& current)>;

struct change_request {
  edit make;
  std::string author;
  std::string reason;
  bool dry_run{false};
  std::optional<std::uint64_t> expected;  // refused unless this is the newest revision
};

class controller {
 public:
  controller(event_loop& loop, const node_config& node, std::shared_ptr<state_keeper> keeper);
  ~controller();
  controller(const controller&) = delete;
  controller& operator=(const controller&) = delete;

  // start() takes up the state file and the segment, and publishes.
  [[nodiscard]] tl::expected<void, std::string> start();

  // change() makes one revision. Any thread; changes come one after the other.
  [[nodiscard]] tl::expected<change_answer, change_error> change(const change_request& request);
  // flush() has the workers forget the connections of a service, or of all of them: their next
  // packets are decided on anew. Returns which services' connections. Any thread.
  [[nodiscard]] tl::expected<std::vector<std::string>, change_error> flush(
      const std::optional<std::string>& service);
  // drain_node() takes this node out, or back in: it announces nothing meanwhile. Any thread.
  [[nodiscard]] tl::expected<node_drain, change_error> drain_node(bool drained,
                                                                  const std::string& author,
                                                                  const std::string& reason);
  // desired() returns the desired state and its revision. Any thread.
  [[nodiscard]] std::pair<std::uint64_t, model::desired_state> desired() const;
  // look() returns what is, as of one moment. Any thread.
  [[nodiscard]] snapshot look();
  // with_tables() calls fn(const abi::config_view&) on the loop's thread, where the current
  // generation stays; fn is quick. Any thread.
  template <class Fn>
  auto with_tables(Fn&& fn) {
    return loop_.invoke([&] { return fn(publication_.writer().view()); });
  }
  // summary() is one line: what there is, and how much of it is up. The loop's thread.
  [[nodiscard]] std::string summary();
  [[nodiscard]] health::checker_counters health_counters();
  // beat() takes a backend's heartbeat, for one service or (without a name) for all that expect
  // some. Returns how many those are. Any thread.
  std::size_t beat(const std::string& service, const ip_address& backend,
                   std::optional<double> load);
  // route_to() is the gateway to a backend, or the backend itself when on-link; nothing
  // when the kernel's routes do not say. Any thread.
  [[nodiscard]] std::optional<ip_address> route_to(const ip_address& backend);

  // discovered() tells whether an address is a backend of a service that a source has found.
  // Any thread, also within an edit.
  [[nodiscard]] bool discovered(const std::string& service, const ip_address& backend) const {
    return discover_->has(service, backend);
  }
  [[nodiscard]] std::vector<discover::source_status> sources();

  // companion: somebody beside the controller whose problems and sources are shown, too. Both are
  // called on the loop's thread.
  struct companion {
    std::function<std::vector<std::string>()> problems;
    std::function<std::vector<discover::source_status>()> sources;
  };
  // accompany(): before the loop runs.
  void accompany(companion c) { companion_ = std::move(c); }

  // Any thread, also the loop's.
  [[nodiscard]] const publish::observation_follower& observations() const noexcept {
    return *observations_;
  }
  [[nodiscard]] const publish_counters& counters() const noexcept {
    return publication_.counters();
  }
  [[nodiscard]] const events::event_log& events() const noexcept { return events_; }
  [[nodiscard]] state_keeper& keeper() noexcept { return *keeper_; }
  [[nodiscard]] const config::context& context() const noexcept { return context_; }
  [[nodiscard]] const node_config& node() const noexcept { return node_; }

 private:
  using runtime_list = std::vector<std::shared_ptr<const service_runtime>>;
  // Which backends (service, position) something concerns.
  using places = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

  void load_seeds();
  void install(const model::desired_state& configured, std::uint64_t revision);
  [[nodiscard]] std::shared_ptr<const service_runtime> make_runtime(const model::service& config,
                                                                    const service_runtime* before);
  void set_targets(const model::desired_state& next);
  [[nodiscard]] health::health_state seed_of(const std::string& service,
                                             const ip_address& backend) const;

  [[nodiscard]] health::target target_of(const model::service& s, const model::backend& b) const;
  [[nodiscard]] std::vector<config_error> open_probe_path(const model::desired_state& next);
  void on_report(const std::string& service, const ip_address& backend);
  void look_for_full();
  void probe_suspects();
  void save_reports();
  [[nodiscard]] tl::expected<void, std::string> open_reports();
  void on_probe_way(const health::target& target);
  void on_verdict(const health::target& target, const health::verdict& verdict);
  void on_neighbours(const std::vector<ip_address>& changed);
  void refresh_routes(const places& where);
  [[nodiscard]] std::uint16_t workers() const;
  // ask_again() sees to it that a decision that time changes is made anew.
  void ask_again(const decision::verdict& decided);
  void decide_due();
  void replace(std::uint32_t service, std::shared_ptr<service_runtime> next);
  void look_around();
  void note_data_plane();
  void announce();
  void refresh_lists();
  [[nodiscard]] tl::expected<void, std::string> open_discovery();
  void refresh_discovered();

  event_loop& loop_;
  const node_config& node_;
  const config::context context_;
  const publish::writer_settings settings_;
  std::shared_ptr<state_keeper> keeper_;
  std::shared_ptr<publish::observation_follower> observations_;
  events::event_log events_;

  mutable std::mutex change_mutex_;  // held over a whole change
  model::desired_state desired_;     // guarded by change_mutex_, as revision_
  std::uint64_t revision_{0};

  // The loop's thread only, from here on.
  publication publication_;
  std::map<std::pair<std::string, ip_address>, bool> seeds_;  // verdicts from before the restart
  list_keeper lists_;
  model::desired_state installed_;  // as configured; services_ have what is discovered, too
  admin_log admin_log_;
  suspects suspects_;
  std::vector<std::uint32_t> limited_;           // services whose connections may be limited
  std::set<std::string> unsaved_reports_;        // services
  std::map<std::string, std::string> reported_;  // by service: as it was stored
  unsigned looks_{0};                            // calls of look_around()
  runtime_list services_;
  std::unordered_map<health::target, places, health::target_hash> by_target_;
  std::map<ip_address, places> by_address_;
  node_drain drain_;
  companion companion_;
  std::map<std::string, std::vector<event_loop::time_point>> flushed_;  // services, when of late
  std::uint64_t seen_data_plane_{0};        // instance of its observations
  std::string shown_data_plane_{"absent"};  // its state, as the last event said
  event_loop::timer_id decision_timer_{0};
  event_loop::time_point decision_at_{};  // when decision_timer_ is set
  event_loop::timer_id look_timer_{0};
  bool quorums_changed_{true};  // perhaps: a decision was made since
  // After what their callbacks use.
  std::unique_ptr<next_hops> hops_;
  std::unique_ptr<probe_path> path_;
  std::unique_ptr<health::health_checker> health_;
  std::unique_ptr<steering> steering_;
  std::unique_ptr<announcer> announcer_;
  std::unique_ptr<discover::cluster_slices> slices_;  // of controlplane.kubernetes
  std::unique_ptr<discover::keeper> discover_;
  std::unique_ptr<backend_reports> reports_;
};

}  // namespace sluice::reconcile
