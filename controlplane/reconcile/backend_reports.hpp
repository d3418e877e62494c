// SPDX-License-Identifier: Apache-2.0
// backend_reports: what backends say of themselves: by agents, which are asked, and by
// heartbeats, which the API is sent.
//
// - What an agent said stands until it says something else, also when it cannot be had.
// - A backend whose heartbeats stay away for heartbeat.missing intervals is unfit; one that never
//   sent one is unheard.
// - The agent's weight goes before the load of heartbeats.
// - After a restart what was stored stands until there is something newer. Who was heard has
//   heartbeat.missing intervals from then.
//
// Threading: the loop's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "controlplane/agent/poller.hpp"
#include "controlplane/agent/words.hpp"
#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/model.hpp"
#include "controlplane/publish/effective.hpp"

namespace sluice::reconcile {

// beats: what a backend's heartbeats say. Not within backend_report: clang 14 would not take it
// for default constructible there.
struct beats {
  bool heard{false};    // ever
  bool missing{false};  // was heard, and no longer
  std::optional<double> load;
  std::optional<double> asked;  // before a restart
  event_loop::time_point deadline{};
};

// report_figures: what is counted of a backend's reports since the start of this process. The
// loop's thread writes, any thread reads: reports that change nothing make no new service_runtime.
struct report_figures {
  std::atomic<std::uint64_t> answers{0};   // of the agent
  std::atomic<std::uint64_t> failures{0};  // to have one
  std::atomic<std::uint64_t> beats{0};     // heartbeats
  // When the last came, in ms since 1970; 0: none did.
  std::atomic<std::int64_t> answered_ms{0};
  std::atomic<std::int64_t> beat_ms{0};
};

// backend_report: what one backend of one service has said.
struct backend_report {
  std::optional<agent::standing_report> agent;  // nothing: it has not said anything yet
  std::string agent_line;                       // last
  std::string agent_problem;       // why there was none at the last time; empty: there was
  std::optional<beats> heartbeat;  // where there shall be some
  // Its copies share them.
  std::shared_ptr<report_figures> figures{std::make_shared<report_figures>()};

  // fill() puts into `c` what follows for a backend.
  void fill(const model::backend& b, publish::condition& c) const;
  // text() says in words why the backend is unfit, unheard, or not to be used; empty: it is not.
  [[nodiscard]] std::string text() const;
};

class backend_reports {
 public:
  // on_change: fill() has something new.
  using change_callback =
      std::function<void(const std::string& service, const ip_address& backend)>;

  backend_reports(event_loop& loop, change_callback on_change);
  ~backend_reports();
  backend_reports(const backend_reports&) = delete;
  backend_reports& operator=(const backend_reports&) = delete;

  // restore() takes up what to_text() made. Before set_services(). False: it is not that.
  [[nodiscard]] bool restore(const std::string& service, std::string_view text);
  // set_services() starts and stops asking as a desired state, with what is discovered, wants.
  void set_services(const model::desired_state& merged);
  // find() is null for a backend that is not asked and need not say anything.
  [[nodiscard]] const backend_report* find(const std::string& service,
                                           const ip_address& backend) const;
  // used_before() is the part of its weight that a backend had before the restart.
  [[nodiscard]] std::optional<double> used_before(const std::string& service,
                                                  const ip_address& backend) const;

  // beat() takes a heartbeat for one service or, without a name, for all that expect some
  // from this backend. Returns how many those are.
  std::size_t beat(const std::string& service, const ip_address& backend,
                   std::optional<double> load);

  // to_text() is what a service's backends have said, for the state file; empty: nothing.
  // used: the parts of their weights that they have, in their order.
  [[nodiscard]] std::string to_text(const model::service& service,
                                    const std::vector<std::optional<double>>& used) const;

 private:
  using key = std::pair<std::string, ip_address>;

  void on_line(const agent::target& target, const std::string& line);
  void on_failure(const agent::target& target, const std::string& why);
  void set_deadline();
  void look_for_missing();

  event_loop& loop_;
  change_callback on_change_;
  std::map<key, backend_report> reports_;
  std::map<key, double> used_before_;
  std::map<key, std::chrono::milliseconds> patience_;  // of those that shall send heartbeats
  std::map<ip_address, std::vector<key>> beats_of_;    // those, by backend
  std::unordered_map<agent::target, std::vector<key>, agent::target_hash> asked_for_;
  event_loop::timer_id timer_{0};
  agent::poller poller_;
};

}  // namespace sluice::reconcile
