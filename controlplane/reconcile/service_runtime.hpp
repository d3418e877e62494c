// SPDX-License-Identifier: Apache-2.0
// service_runtime: one service with all that is known of it and was decided about it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/decision/decision.hpp"
#include "controlplane/events/event_log.hpp"
#include "controlplane/health/health_checker.hpp"
#include "controlplane/model/model.hpp"
#include "controlplane/publish/effective.hpp"
#include "controlplane/reconcile/backend_reports.hpp"
#include "controlplane/reconcile/next_hops.hpp"

namespace sluice::reconcile {

struct backend_runtime {
  publish::condition condition;
  std::string health_text;
  std::optional<backend_report> report;  // what it says of itself
  bool probed_through{false};            // by the data path, addressed to the VIP
  route way;
};

// Not changed once shared.
struct service_runtime {
  model::service config;
  std::vector<backend_runtime> backends;  // in the order of config.backends
  lists::shared_ranges allow;             // null: everybody
  lists::shared_ranges deny;              // null: nobody
  publish::published_service published;
  decision::verdict decided;  // what `published` follows from
  // Probes made at once because of the data plane's counters (suspects). Any thread; copies share
  // it.
  std::shared_ptr<std::atomic<std::uint64_t>> hints{
      std::make_shared<std::atomic<std::uint64_t>>(0)};
};

[[nodiscard]] abi::shown_health to_shown(health::health_state s) noexcept;
// is_checked() tells whether a service has health checks.
[[nodiscard]] bool is_checked(const model::service& s) noexcept;
[[nodiscard]] bool is_checked(const model::service& s, const model::backend& b) noexcept;
// most_connections() is how many connections a backend may have; 0: any number.
[[nodiscard]] std::uint32_t most_connections(const model::backend& b,
                                             const backend_runtime& r) noexcept;

// decide() makes the next decision about a service, from the one that s has, and events of
// what that changes.
void decide(service_runtime& s, events::event_log& events);

}  // namespace sluice::reconcile
