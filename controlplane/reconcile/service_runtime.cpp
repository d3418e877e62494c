// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/service_runtime.hpp"

#include <spdlog/spdlog.h>

#include "controlplane/loop/event_loop.hpp"

namespace sluice::reconcile {
namespace {

// tell_decision() makes events of what a decision has changed.
void tell_decision(events::event_log& events, const std::string& service,
                   const decision::memory& before, bool was_panic, const decision::verdict& now) {
  const auto shown = [](const std::optional<std::uint8_t>& tier) {
    return tier ? nlohmann::ordered_json(*tier) : nlohmann::ordered_json();
  };
  if (now.panic != was_panic) events.add("panic", service, {{"panic", now.panic}});
  if (now.tier != before.tier)
    events.add("tier", service, {{"tier", shown(now.tier)}, {"before", shown(before.tier)}});
}

}  // namespace

abi::shown_health to_shown(health::health_state s) noexcept {
  switch (s) {
    case health::health_state::up:
      return abi::shown_health::up;
    case health::health_state::down:
      return abi::shown_health::down;
    case health::health_state::unknown:
      break;
  }
  return abi::shown_health::unknown;
}

bool is_checked(const model::service& s) noexcept {
  return s.health.kind != model::health_kind::none;
}

bool is_checked(const model::service& s, const model::backend& b) noexcept {
  return is_checked(s) && !b.sorry;
}

std::uint32_t most_connections(const model::backend& b, const backend_runtime& r) noexcept {
  if (r.report && r.report->agent && r.report->agent->most_connections)
    return *r.report->agent->most_connections;
  return b.max_connections;
}

void decide(service_runtime& s, events::event_log& events) {
  std::vector<publish::condition> conditions;
  conditions.reserve(s.backends.size());
  for (const auto& b : s.backends) conditions.push_back(b.condition);
  const decision::memory before = std::move(s.decided.next);
  const bool was_panic = s.decided.panic;
  const bool first = s.published.name.empty();
  s.decided = publish::decide(s.config, conditions, before, event_loop::now());
  s.published = publish::effective(s.config, conditions, s.decided);
  s.published.allow = s.allow;
  s.published.deny = s.deny;
  if (s.decided.tier != before.tier && before.tier && s.decided.tier)
    spdlog::info("{}: new connections go to tier {}, no longer to tier {}", s.config.name,
                 *s.decided.tier, *before.tier);
  if (!first) tell_decision(events, s.config.name, before, was_panic, s.decided);
}

}  // namespace sluice::reconcile
