// SPDX-License-Identifier: Apache-2.0
// What the controller does about what it hears: verdicts, neighbours, lists, the data plane,
// and that time has passed.
#include <algorithm>
#include <map>
#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/decision/full.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr auto look_every = 100ms;
constexpr unsigned looks_per_list = 10;  // files of lists are looked at every second

}  // namespace

void controller::replace(std::uint32_t service, std::shared_ptr<service_runtime> next) {
  decide(*next, events_);
  ask_again(next->decided);
  const bool differs = next->published != publication_.state().services[service];
  if (differs) publication_.state().services[service] = next->published;
  if (!services_[service]->config.agent.off() || !services_[service]->config.heartbeat.off())
    unsaved_reports_.insert(services_[service]->config.name);
  services_[service] = std::move(next);
  quorums_changed_ = true;
  if (differs) publication_.soon();
}

void controller::ask_again(const decision::verdict& decided) {
  if (!decided.again || (decision_timer_ != 0 && decision_at_ <= *decided.again)) return;
  loop_.cancel(decision_timer_);
  decision_at_ = *decided.again;
  decision_timer_ = loop_.call_at(decision_at_, [this] {
    decision_timer_ = 0;
    decide_due();
  });
}

void controller::decide_due() {
  const auto now = event_loop::now();
  for (std::uint32_t i = 0; i < services_.size(); ++i) {
    const auto& again = services_[i]->decided.again;
    if (!again) continue;
    if (*again <= now)
      replace(i, std::make_shared<service_runtime>(*services_[i]));
    else
      ask_again(services_[i]->decided);
  }
}

void controller::on_verdict(const health::target& target, const health::verdict& verdict) {
  const auto found = by_target_.find(target);
  if (found == by_target_.end()) return;
  for (const auto& [service, position] : found->second) {
    auto next = std::make_shared<service_runtime>(*services_[service]);
    backend_runtime& b = next->backends[position];
    const auto shown = verdict.up ? abi::shown_health::up : abi::shown_health::down;
    if (b.condition.health != shown) {
      spdlog::info("{}: backend {}: {} ({})", next->config.name, format_ip(target.address),
                   verdict.up ? "up" : "down", verdict.reason);
      events_.add("health", next->config.name,
                  {{"backend", format_ip(target.address)},
                   {"health", verdict.up ? "up" : "down"},
                   {"text", verdict.reason}});
    } else if (b.condition.weight != verdict.weight) {
      spdlog::info("{}: backend {}: {}", next->config.name, format_ip(target.address),
                   verdict.reason);
    }
    if (b.condition.health != shown || b.condition.weight != verdict.weight)
      publication_.note_verdict(verdict.decided);
    b.condition.health = shown;
    b.condition.weight = verdict.weight;
    b.health_text = verdict.reason;
    keeper_->save_later({next->config.name, target.address, verdict.up, verdict.time});
    replace(service, std::move(next));
  }
}

// on_report() takes over what a backend has said of itself.
void controller::on_report(const std::string& service, const ip_address& backend) {
  const auto found =
      std::lower_bound(services_.begin(), services_.end(), service,
                       [](const auto& s, const auto& name) { return s->config.name < name; });
  if (found == services_.end() || (*found)->config.name != service) return;
  const service_runtime& now = **found;
  const model::backend* b = model::find_backend(now.config, backend);
  const backend_report* said = reports_->find(service, backend);
  if (b == nullptr || said == nullptr) return;
  const auto position = static_cast<std::size_t>(b - now.config.backends.data());
  const publish::condition& before = now.backends[position].condition;
  auto next = std::make_shared<service_runtime>(now);
  backend_runtime& r = next->backends[position];
  r.report = *said;
  said->fill(*b, r.condition);
  const auto was = publish::health_of(now.config, *b, before);
  const auto is = publish::health_of(now.config, *b, r.condition);
  if (was != is) {
    const bool down = is == abi::shown_health::down;
    const std::string why = r.report->text().empty() ? r.health_text : r.report->text();
    spdlog::info("{}: backend {}: {} ({})", service, format_ip(backend), down ? "down" : "not down",
                 why);
    if (is != abi::shown_health::unknown)
      events_.add(
          "health", service,
          {{"backend", format_ip(backend)}, {"health", down ? "down" : "up"}, {"text", why}});
    publication_.note_verdict(event_loop::now());
  } else if (before.wish != r.condition.wish) {
    spdlog::info("{}: backend {}: {}", service, format_ip(backend),
                 r.report->text().empty() ? "ready" : r.report->text());
  }
  unsaved_reports_.insert(service);
  replace(static_cast<std::uint32_t>(found - services_.begin()), std::move(next));
}

// save_reports() hands on what has changed since it was stored.
void controller::save_reports() {
  for (const std::string& name : std::exchange(unsaved_reports_, {})) {
    const auto found =
        std::lower_bound(services_.begin(), services_.end(), name,
                         [](const auto& s, const auto& n) { return s->config.name < n; });
    std::string text;
    if (found != services_.end() && (*found)->config.name == name) {
      std::vector<std::optional<double>> used;
      for (const auto& m : (*found)->decided.next.backends)
        used.push_back(m.weight ? std::optional{m.weight->used} : std::nullopt);
      text = reports_->to_text((*found)->config, used);
    }
    const auto before = reported_.find(name);
    if (before == reported_.end() ? text.empty() : before->second == text) continue;
    keeper_->save_reports_later(name, text);
    if (text.empty())
      reported_.erase(before);
    else
      reported_[name] = std::move(text);
  }
}

// probe_suspects() asks those at once that the data plane's counters say something about.
void controller::probe_suspects() {
  const auto data_plane = observations_->current();
  if (!data_plane || !data_plane->alive()) return;
  for (const auto& [service, position] :
       suspects_.look(services_, publication_.writer().ids(), *data_plane)) {
    const service_runtime& s = *services_[service];
    const model::backend& b = s.config.backends[position];
    if (!is_checked(s.config, b)) continue;
    spdlog::debug("{}: backend {}: its connections are not answered, or reset: probed at once",
                  s.config.name, format_ip(b.address));
    s.hints->fetch_add(1, std::memory_order_relaxed);
    (void)health_->probe_now(target_of(s.config, b));
  }
}

// look_for_full() counts the connections of backends that may have so many only.
void controller::look_for_full() {
  const auto data_plane = observations_->current();
  if (!data_plane || !data_plane->alive()) return;
  const publish::id_book& ids = publication_.writer().ids();
  const bool same = data_plane->instance() == publication_.writer().base_instance();
  for (const std::uint32_t service : limited_) {
    std::shared_ptr<service_runtime> next;
    const service_runtime& now = *services_[service];
    for (std::size_t i = 0; i < now.backends.size(); ++i) {
      const model::backend& b = now.config.backends[i];
      const backend_runtime& r = now.backends[i];
      const std::uint32_t most = most_connections(b, r);
      std::uint64_t connections = 0;
      if (most != 0)
        if (const auto row = ids.find_backend(now.config.name, b.address))
          connections = publish::tracked(data_plane->backend_sums(*row),
                                         same ? ids.row(*row).base : publish::counter_sums{});
      const bool full = decision::is_full(r.condition.full, connections, most);
      if (full == r.condition.full) continue;
      spdlog::info("{}: backend {}: {} of {} connections: {}", now.config.name,
                   format_ip(b.address), connections, most,
                   full ? "no new ones" : "new ones again");
      if (!next) next = std::make_shared<service_runtime>(now);
      next->backends[i].condition.full = full;
    }
    if (next) replace(service, std::move(next));
  }
}

void controller::on_probe_way(const health::target& target) {
  const auto found = by_target_.find(target);
  if (found == by_target_.end()) return;
  const bool through = path_->through(target);
  for (const auto& [service, position] : found->second) {
    // While a new state is being installed, its places are not yet those of services_.
    if (service >= services_.size()) continue;
    const service_runtime& now = *services_[service];
    if (position >= now.backends.size() || now.backends[position].probed_through == through ||
        !(target_of(now.config, now.config.backends[position]) == target))
      continue;
    auto next = std::make_shared<service_runtime>(now);
    next->backends[position].probed_through = through;
    replace(service, std::move(next));
  }
}

void controller::on_neighbours(const std::vector<ip_address>& changed) {
  for (const auto& address : changed)
    if (const auto found = by_address_.find(address); found != by_address_.end())
      refresh_routes(found->second);
}

void controller::refresh_routes(const places& where) {
  for (const auto& [service, position] : where) {
    const auto& now = *services_[service];
    path_->refresh(target_of(now.config, now.config.backends[position]));
    route way = hops_->find(now.config.backends[position].address, now.config.forward);
    if (way == now.backends[position].way) continue;
    auto next = std::make_shared<service_runtime>(now);
    next->backends[position].condition.next_hop = way.hop;
    next->backends[position].way = std::move(way);
    replace(service, std::move(next));
  }
}

void controller::refresh_lists() {
  if (!lists_.refresh()) return;
  // One that does not fit must not hold up what else there is to publish.
  publish::published_state wanted = publication_.state();
  for (std::uint32_t i = 0; i < services_.size(); ++i) {
    wanted.services[i].allow = lists_.find(services_[i]->config.allow);
    wanted.services[i].deny = lists_.find(services_[i]->config.deny);
  }
  if (const std::string too_much = publication_.writer().check(wanted); !too_much.empty())
    return lists_.undo(too_much);
  for (std::uint32_t i = 0; i < services_.size(); ++i) {
    const auto& now = *services_[i];
    auto allow = lists_.find(now.config.allow);
    auto deny = lists_.find(now.config.deny);
    if (allow == now.allow && deny == now.deny) continue;
    auto next = std::make_shared<service_runtime>(now);
    next->allow = std::move(allow);
    next->deny = std::move(deny);
    replace(i, std::move(next));
  }
}

// note_data_plane() makes an event of a data plane that comes, stalls or goes.
void controller::note_data_plane() {
  constexpr std::uint64_t stalled_after_ns = 2'000'000'000;
  const auto data_plane = observations_->current();
  std::string state = "absent";
  if (data_plane && data_plane->alive()) {
    const std::uint64_t beat = data_plane->map().info().heartbeat_ns.read();
    state = beat + stalled_after_ns < abi::clock_ns(CLOCK_MONOTONIC) ? "stalled" : "running";
  }
  const bool other = data_plane && data_plane->instance() != seen_data_plane_;
  if (state == shown_data_plane_ && !other) return;
  if (state == "absent" && shown_data_plane_ == "absent") return;
  shown_data_plane_ = state;
  nlohmann::ordered_json data = {{"state", state}};
  if (state != "absent") {
    data["pid"] = data_plane->map().info().pid;
    data["workers"] = data_plane->workers();
  }
  events_.add("dataplane", {}, std::move(data));
}

// announce() puts together what the announcer has to know.
void controller::announce() {
  if (announcer_->off()) return;
  if (std::exchange(quorums_changed_, false)) {
    std::map<ip_address, bool> quorums;
    for (const auto& s : services_) {
      bool& one = quorums[s->config.address];
      one = one || s->decided.announce;
    }
    announcer_->set_quorums(std::move(quorums));
  }
  const auto data_plane = observations_->current();
  const bool forwarding =
      shown_data_plane_ == "running" && data_plane &&
      data_plane->map().info().config_instance.read() == publication_.writer().segment().instance();
  announcer_->look(forwarding, drain_.drained, event_loop::now());
}

void controller::look_around() {
  if (++looks_ % looks_per_list == 0) {
    refresh_lists();
    save_reports();
  }
  look_timer_ = loop_.call_after(look_every, [this] { look_around(); });
  observations_->refresh();
  note_data_plane();
  if (const auto data_plane = observations_->current()) {
    if (hops_->set_data_plane(*data_plane))
      for (const auto& [address, where] : by_address_) refresh_routes(where);
    if (data_plane->instance() != seen_data_plane_) {
      seen_data_plane_ = data_plane->instance();
      spdlog::info("data plane: process {}, {} workers", data_plane->map().info().pid,
                   data_plane->workers());
    }
    // The rates are shared by other workers than before.
    if (publication_.state().workers != workers()) {
      publication_.state().workers = workers();
      publication_.soon();
    }
    // It counts from 0: the published bases must follow.
    if (data_plane->instance() != publication_.writer().base_instance()) publication_.soon();
  }
  announce();
  if (!limited_.empty()) look_for_full();
  probe_suspects();
  steering_->check(publication_.writer().view());
  path_->check();
}

}  // namespace sluice::reconcile
