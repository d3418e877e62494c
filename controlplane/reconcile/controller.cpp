// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/controller.hpp"

#include <algorithm>
#include <set>

#include <spdlog/spdlog.h>

#include "controlplane/discover/stored.hpp"
#include "controlplane/publish/memory_config.hpp"
#include "controlplane/publish/recover.hpp"

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr auto coalesce_for = 1ms;
constexpr auto retry_stuck = 2ms;
constexpr auto retry_refused = 1s;
constexpr auto report_stuck_after = 500ms;
constexpr auto look_every = 100ms;
constexpr unsigned looks_per_list = 10;  // files of lists are looked at every second

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

bool is_checked(const model::service& s) {
  return s.health.kind != model::health_kind::none;
}

// tell_decision() makes events of what a decision has changed.
void tell_decision(events::event_log& events, const std::string& service,
                   const decision::memory& before, bool was_panic, const decision::verdict& now) {
  if (before.backends.empty()) return;  // the first one
  const auto shown = [](const std::optional<std::uint8_t>& tier) {
    return tier ? nlohmann::ordered_json(*tier) : nlohmann::ordered_json();
  };
  if (now.panic != was_panic) events.add("panic", service, {{"panic", now.panic}});
  if (now.tier != before.tier)
    events.add("tier", service, {{"tier", shown(now.tier)}, {"before", shown(before.tier)}});
}

// decide() makes the next decision about a service, from the one that s has.
void decide(service_runtime& s, events::event_log& events) {
  std::vector<publish::condition> conditions;
  conditions.reserve(s.backends.size());
  for (const auto& b : s.backends) conditions.push_back(b.condition);
  const decision::memory before = std::move(s.decided.next);
  const bool was_panic = s.decided.panic;
  s.decided = publish::decide(s.config, conditions, before, event_loop::now());
  s.published = publish::effective(s.config, conditions, s.decided);
  s.published.allow = s.allow;
  s.published.deny = s.deny;
  if (s.decided.tier != before.tier && before.tier && s.decided.tier)
    spdlog::info("{}: new connections go to tier {}, no longer to tier {}", s.config.name,
                 *s.decided.tier, *before.tier);
  tell_decision(events, s.config.name, before, was_panic, s.decided);
}

publish::writer_settings settings_of(const node_config& node) {
  return publish::options_of(node).settings;
}

}  // namespace

controller::controller(event_loop& loop, const node_config& node,
                       std::shared_ptr<state_keeper> keeper)
    : loop_{loop},
      node_{node},
      context_{config::context::of(node)},
      settings_{settings_of(node)},
      keeper_{std::move(keeper)},
      observations_{
          std::make_shared<publish::observation_follower>(node.observation_segment_path())} {}

controller::~controller() {
  for (const auto timer : {publish_timer_, await_timer_, look_timer_, decision_timer_})
    loop_.cancel(timer);
}

tl::expected<void, std::string> controller::open_segment() {
  const std::string path = node_.config_segment_path();
  const auto& wanted = node_.controlplane.limits;
  // Three generations may be in use at a time when every table changes.
  const abi::config_limits limits{wanted.services, wanted.backends,
                                  (std::uint64_t{wanted.table_memory_mib} << 20) * 3};
  const auto create = [&] { return publish::config_segment::create_file(path, limits); };
  if (abi::inode_of(path) == 0) {
    auto segment = create();
    if (!segment) return tl::unexpected{segment.error()};
    writer_ = publish::config_writer::fresh(std::move(*segment), settings_, observations_);
    spdlog::info("{}: new tables", path);
    return {};
  }
  std::string damage;
  auto live = publish::config_segment::attach_file(path);
  if (!live) {
    damage = live.error();
  } else if (live->limits().services == limits.services &&
             live->limits().backends == limits.backends &&
             live->limits().arena_bytes == limits.arena_bytes) {
    auto writer = publish::config_writer::attach(std::move(*live), settings_, observations_);
    if (writer) {
      writer_ = std::move(*writer);
      spdlog::info("{}: goes on from generation {}", path, writer_->generation());
      return {};
    }
    damage = path + ": " + writer.error();
  } else {
    auto segment = create();
    if (!segment) return tl::unexpected{segment.error()};
    auto writer =
        publish::config_writer::replace(*live, std::move(*segment), settings_, observations_);
    if (writer) {
      writer_ = std::move(*writer);
      spdlog::info("{}: new tables with other limits, the numbers are kept", path);
      return {};
    }
    damage = path + ": " + writer.error();
  }
  // The data plane goes on with the old file until it sees the new one.
  spdlog::error("{}: replaced by new tables; connections may change their backends", damage);
  auto segment = create();
  if (!segment) return tl::unexpected{segment.error()};
  writer_ = publish::config_writer::fresh(std::move(*segment), settings_, observations_);
  return {};
}

void controller::load_seeds() {
  if (auto stored = keeper_->load_verdicts()) {
    for (const auto& v : *stored) seeds_[{v.service, v.backend}] = v.healthy;
  } else {
    spdlog::warn("{}: the health verdicts are lost", stored.error());
  }
  // The live segment is newer: the file is written a second later.
  for (const auto& v : publish::health_shown(writer_->view()))
    seeds_[{v.service, v.backend}] = v.up;
}

tl::expected<void, std::string> controller::start() {
  observations_->refresh();
  if (auto opened = open_segment(); !opened) return opened;
  load_seeds();
  auto latest = keeper_->load_latest();
  if (!latest) return tl::unexpected{latest.error()};

  path_ = std::make_unique<probe_path>(node_, [this](const auto& target) { on_probe_way(target); });
  health::checker_options options;
  options.make_socket = [this](const auto& target) { return path_->make_socket(target); };
  health_ = std::make_unique<health::health_checker>(
      loop_, [this](const auto& target, const auto& verdict) { on_verdict(target, verdict); },
      std::move(options));
  hops_ = std::make_unique<next_hops>(loop_, node_,
                                      [this](const auto& changed) { on_neighbours(changed); });
  path_->set_hops(*hops_);
  if (!hops_->netlink_error().empty()) spdlog::warn("{}", hops_->netlink_error());
  steering_ = std::make_unique<steering>(node_);
  if (const auto data_plane = observations_->current()) hops_->set_data_plane(*data_plane);

  if (*latest) {
    const std::lock_guard lock{change_mutex_};
    desired_ = std::move((*latest)->state);
    revision_ = (*latest)->info.number;
    admin_log_.restore(*keeper_, desired_);
  }
  for (const auto& e : config::check(desired_, context_))
    spdlog::warn("revision {}: {}", revision_, e.to_string());
  for (const auto& s : desired_.services) {
    const auto shown = [&] { return publish::lists_shown(writer_->segment(), s.name); };
    (void)lists_.find(s.allow, [&] { return shown().allow; });
    (void)lists_.find(s.deny, [&] { return shown().deny; });
  }
  for (const auto& e : open_probe_path(desired_))
    spdlog::warn("revision {}: {}", revision_, e.to_string());
  if (auto opened = open_discovery(); !opened) return opened;
  install(desired_, revision_);
  spdlog::info("revision {}: {} services", revision_, desired_.services.size());
  look_around();
  return {};
}

// open_discovery() takes up what was known of discovered backends.
tl::expected<void, std::string> controller::open_discovery() {
  discover_ = std::make_unique<discover::keeper>(
      loop_, [this] { refresh_discovered(); },
      [this](const std::string& service, const discover::known* now) {
        keeper_->save_discovered_later(service, now ? discover::to_text(*now) : std::string{});
      });
  const auto stored = keeper_->load_discovered();
  if (!stored) return tl::unexpected{stored.error()};
  for (const auto& [service, text] : *stored) {
    if (auto known = discover::from_text(text))
      discover_->restore(service, std::move(*known));
    else
      spdlog::error("{}: what was discovered before is lost: it {}", service, known.error());
  }
  return {};
}

// refresh_discovered() takes over what sources have found since.
void controller::refresh_discovered() {
  const auto check = [&](const model::desired_state& merged) -> std::string {
    if (const auto errors = config::check(merged, context_); !errors.empty())
      return errors.front().to_string();
    if (std::string why = steering_->refusal(merged); !why.empty()) return why;
    return writer_->check(publish::all_healthy(
        merged, {settings_, {}, state_.revision, state_.workers, [&](const model::prefix_set& set) {
                   return lists_.find(set);
                 }}));
  };
  if (discover_->refresh(installed_, check)) install(installed_, state_.revision);
}

tl::expected<change_answer, change_error> controller::change(const change_request& request) {
  const std::lock_guard lock{change_mutex_};
  if (request.expected && *request.expected != revision_)
    return tl::unexpected{change_error{
        refusal::conflict,
        {{{},
          0,
          "revision",
          "is " + std::to_string(revision_) + " by now, not " + std::to_string(*request.expected) +
              "; see what changed since (GET /v1/diff, sluice diff) and try again"}}}};
  auto next = request.make(desired_);
  if (!next) return tl::unexpected{next.error()};
  model::normalise(*next);
  if (auto errors = config::check(*next, context_); !errors.empty())
    return tl::unexpected{change_error{refusal::invalid, std::move(errors)}};
  change_answer answer{revision_, model::diff(desired_, *next)};
  if (*next == desired_) return answer;
  // What is discovered has to go with what is configured.
  const model::desired_state merged = discover_->merge(*next);
  if (auto errors = config::check(merged, context_); !errors.empty())
    return tl::unexpected{change_error{refusal::invalid, std::move(errors)}};
  if (auto errors = open_probe_path(*next); !errors.empty())
    return tl::unexpected{change_error{refusal::invalid, std::move(errors)}};
  if (auto lists = lists_.prepare(*next); !lists)
    return tl::unexpected{change_error{refusal::invalid, std::move(lists.error())}};
  const std::string too_much = loop_.invoke([&] {
    const auto find_list = [&](const model::prefix_set& set) { return lists_.find(set); };
    if (std::string why = steering_->refusal(merged); !why.empty()) return why;
    return writer_->check(
        publish::all_healthy(merged, {settings_, {}, revision_, state_.workers, find_list}));
  });
  if (!too_much.empty())
    return tl::unexpected{change_error{refusal::invalid, {{{}, 0, "services", too_much}}}};
  if (request.dry_run) return answer;

  const auto number = keeper_->commit(*next, request.author, request.reason,
                                      static_cast<std::uint32_t>(answer.changes.size()), merged);
  if (!number) return tl::unexpected{change_error{refusal::failed, {{{}, 0, {}, number.error()}}}};
  answer.revision = *number;
  revision_ = *number;
  const model::desired_state before = std::exchange(desired_, std::move(*next));
  admin_log::entry by{*number, std::chrono::system_clock::now(), request.author, request.reason};
  // As it was stored, so that it is the same after a restart.
  if (admin_log::concerns(before, desired_))
    if (const auto stored = keeper_->history(1); stored && !stored->empty())
      by.time = stored->front().time;
  events_.add("revision", {},
              {{"revision", *number},
               {"author", request.author},
               {"reason", request.reason},
               {"changes", answer.changes.size()}});
  loop_.invoke([&] {
    admin_log_.note(before, desired_, by);
    install(desired_, revision_);
  });
  spdlog::info("revision {} by {}: {} changes", revision_,
               request.author.empty() ? "unknown" : request.author, answer.changes.size());
  return answer;
}

std::pair<std::uint64_t, model::desired_state> controller::desired() const {
  const std::lock_guard lock{change_mutex_};
  return {revision_, desired_};
}

snapshot controller::look() {
  return loop_.invoke([this] {
    snapshot s;
    s.revision = state_.revision;
    s.generation = writer_->generation();
    s.published = current_;
    s.services = services_;
    s.tables = publish::shown_tables::copy(writer_->view());
    s.base_instance = writer_->base_instance();
    s.segment_instance = writer_->segment().instance();
    if (problem_logged_) s.warnings.push_back("not published: " + publish_problem_);
    if (!hops_->netlink_error().empty()) s.warnings.push_back(hops_->netlink_error());
    for (auto& p : discover_->problems()) s.warnings.push_back(std::move(p));
    for (auto& p : lists_.problems()) s.warnings.push_back(std::move(p));
    for (auto& p : steering_->problems()) s.warnings.push_back(std::move(p));
    for (auto& p : path_->problems()) s.warnings.push_back(std::move(p));
    if (auto e = keeper_->last_error(); !e.empty()) s.warnings.push_back(std::move(e));
    if (auto e = observations_->last_error(); !e.empty()) s.warnings.push_back(std::move(e));
    s.admin = admin_log_.all();
    for (const auto& service : services_)
      if (service->decided.panic)
        s.warnings.push_back("service " + service->config.name +
                             ": too few backends can serve, so health is ignored");
    return s;
  });
}

health::checker_counters controller::health_counters() {
  return loop_.invoke([this] { return health_->counters(); });
}

std::optional<ip_address> controller::route_to(const ip_address& backend) {
  return loop_.invoke([&]() -> std::optional<ip_address> {
    const auto found = by_address_.find(backend);
    if (found == by_address_.end()) return std::nullopt;
    const auto [service, position] = found->second.front();
    const ip_address& via = services_[service]->backends[position].way.via;
    return via == ip_address{} ? std::nullopt : std::optional{via};
  });
}

health::target controller::target_of(const model::service& s, const model::backend& b) const {
  return health::make_target(b.address, s.port.first, s.health, path_->path_for(s, b));
}

// open_probe_path() returns what is wrong with services that insist on it. Any thread: it
// takes too long for the loop.
std::vector<config_error> controller::open_probe_path(const model::desired_state& next) {
  std::vector<config_error> errors;
  if (!probe_path::wanted(next)) return errors;
  const std::string why = path_->open();
  if (why.empty()) return errors;
  for (const auto& s : next.services)
    if (is_checked(s) && s.health.via == model::health_via::data_path)
      errors.push_back({{},
                        0,
                        "services[" + s.name + "].health.via",
                        "data-path is impossible: " + why + "; expected auto or direct"});
  return errors;
}

health::health_state controller::seed_of(const std::string& service,
                                         const ip_address& backend) const {
  const auto seed = seeds_.find({service, backend});
  if (seed == seeds_.end()) return health::health_state::unknown;
  return seed->second ? health::health_state::up : health::health_state::down;
}

void controller::set_targets(const model::desired_state& next) {
  std::vector<health::wanted_target> wanted;
  by_target_.clear();
  by_address_.clear();
  std::vector<ip_address> addresses;
  std::set<ip_address> vips;
  for (std::uint32_t i = 0; i < next.services.size(); ++i) {
    const model::service& s = next.services[i];
    vips.insert(s.address);
    for (std::uint32_t b = 0; b < s.backends.size(); ++b) {
      const ip_address& address = s.backends[b].address;
      by_address_[address].emplace_back(i, b);
      if (!is_checked(s)) continue;
      health::target t = target_of(s, s.backends[b]);
      wanted.push_back({t, seed_of(s.name, address)});
      by_target_[std::move(t)].emplace_back(i, b);
    }
  }
  addresses.reserve(by_address_.size());
  for (const auto& [address, where] : by_address_) addresses.push_back(address);
  hops_->set_addresses(std::move(addresses));
  health_->set_targets(wanted);
  path_->set_targets(wanted, std::move(vips));
}

std::shared_ptr<const service_runtime> controller::make_runtime(const model::service& config,
                                                                const service_runtime* before) {
  auto next = std::make_shared<service_runtime>();
  next->config = config;
  next->backends.resize(config.backends.size());
  for (std::size_t i = 0; i < config.backends.size(); ++i) {
    const ip_address& address = config.backends[i].address;
    backend_runtime& b = next->backends[i];
    b.way = hops_->find(address, config.forward);
    b.condition.next_hop = b.way.hop;
    if (!is_checked(config)) {
      b.health_text = "not checked";
      continue;
    }
    const health::target target = target_of(config, config.backends[i]);
    b.condition.health = to_shown(health_->state_of(target));
    b.probed_through = path_->through(target);
    const model::backend* old = before ? model::find_backend(before->config, address) : nullptr;
    if (old != nullptr && is_checked(before->config)) {
      b.health_text =
          before->backends[static_cast<std::size_t>(old - before->config.backends.data())]
              .health_text;
    } else {
      b.health_text = b.condition.health == abi::shown_health::unknown
                          ? "not probed yet"
                          : "known from before, not probed yet";
    }
  }
  next->allow = lists_.find(config.allow);
  next->deny = lists_.find(config.deny);
  if (before != nullptr) {
    next->decided.next = before->decided.next;
    next->decided.panic = before->decided.panic;
  }
  decide(*next, events_);
  return next;
}

void controller::install(const model::desired_state& configured, std::uint64_t revision) {
  if (&configured != &installed_) installed_ = configured;
  discover_->set_services(installed_);
  const model::desired_state next = discover_->merge(installed_);
  set_targets(next);
  runtime_list services;
  services.reserve(next.services.size());
  publish::published_state state;
  state.revision = revision;
  state.workers = workers();
  auto old = services_.begin();
  for (const auto& s : next.services) {
    while (old != services_.end() && (*old)->config.name < s.name) ++old;
    const bool known = old != services_.end() && (*old)->config.name == s.name;
    if (known && (*old)->config == s) {
      services.push_back(*old);
    } else {
      services.push_back(make_runtime(s, known ? old->get() : nullptr));
    }
    state.services.push_back(services.back()->published);
    ask_again(services.back()->decided);
  }
  services_ = std::move(services);
  state_ = std::move(state);
  lists_.keep_only(next);
  // Seeds are for the first state only: what is added later begins unknown.
  seeds_.clear();
  publish_now();
}

std::uint16_t controller::workers() const {
  if (const auto data_plane = observations_->current())
    return static_cast<std::uint16_t>(data_plane->workers());
  return publish::workers_of(node_);
}

void controller::replace(std::uint32_t service, std::shared_ptr<service_runtime> next) {
  decide(*next, events_);
  ask_again(next->decided);
  const bool differs = next->published != state_.services[service];
  if (differs) state_.services[service] = next->published;
  services_[service] = std::move(next);
  if (differs) publish_soon();
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
      if (!oldest_verdict_) oldest_verdict_ = verdict.decided;
    }
    b.condition.health = shown;
    b.health_text = verdict.reason;
    keeper_->save_later({next->config.name, target.address, verdict.up, verdict.time});
    replace(service, std::move(next));
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
  publish::published_state wanted = state_;
  for (std::uint32_t i = 0; i < services_.size(); ++i) {
    wanted.services[i].allow = lists_.find(services_[i]->config.allow);
    wanted.services[i].deny = lists_.find(services_[i]->config.deny);
  }
  if (const std::string too_much = writer_->check(wanted); !too_much.empty())
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

void controller::look_around() {
  if (++looks_ % looks_per_list == 0) refresh_lists();
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
    if (state_.workers != workers()) {
      state_.workers = workers();
      publish_soon();
    }
    // It counts from 0: the published bases must follow.
    if (data_plane->instance() != writer_->base_instance()) publish_soon();
  }
  steering_->check(writer_->view());
  path_->check();
}

void controller::publish_soon() {
  current_ = false;
  if (publish_timer_ != 0 || publish_posted_) return;
  const auto now = event_loop::now();
  if (now - published_at_ >= coalesce_for) {
    // A verdict that comes alone does not wait for a timer: those that the loop has already
    // fetched share its generation, what comes after that the next one.
    publish_posted_ = true;
    loop_.post([this, here = std::weak_ptr{here_}] {
      if (!here.expired() && publish_posted_) publish_now();
    });
    return;
  }
  publish_timer_ = loop_.call_after(coalesce_for, [this] {
    publish_timer_ = 0;
    publish_now();
  });
}

void controller::publish_now() {
  loop_.cancel(std::exchange(publish_timer_, 0));
  publish_posted_ = false;
  const publish::publish_result done = writer_->publish(state_);
  published_at_ = event_loop::now();
  current_ = done.status == publish::publish_status::published;
  if (current_) {
    if (problem_logged_) spdlog::info("generation {}: published after all", done.generation);
    problem_since_.reset();
    problem_logged_ = false;
    publish_problem_.clear();
    counters_.published.fetch_add(1, std::memory_order_relaxed);
    counters_.tables_built.fetch_add(done.tables_built, std::memory_order_relaxed);
    counters_.build.add(done.took);
    events_.add("publish", {},
                {{"generation", done.generation},
                 {"revision", state_.revision},
                 {"tables_built", done.tables_built},
                 {"ms", std::chrono::duration<double, std::milli>(done.took).count()}});
    spdlog::debug("generation {}: {} tables built, {:.2f} ms", done.generation, done.tables_built,
                  std::chrono::duration<double, std::milli>(done.took).count());
    if (!awaited_verdict_) awaited_verdict_ = oldest_verdict_;
    oldest_verdict_.reset();
    awaited_ = done.generation;
    await_workers();
    steering_->set(writer_->view());
    return;
  }
  const bool refused = done.status == publish::publish_status::refused;
  (refused ? counters_.refused : counters_.deferred).fetch_add(1, std::memory_order_relaxed);
  publish_problem_ = done.error;
  const auto now = event_loop::now();
  if (!problem_since_) problem_since_ = now;
  // A worker that slept for some milliseconds is nothing to report.
  if (!problem_logged_ && (refused || now - *problem_since_ >= report_stuck_after)) {
    spdlog::warn("not published: {}", done.error);
    problem_logged_ = true;
  }
  publish_timer_ = loop_.call_after(
      refused ? event_loop::duration{retry_refused} : event_loop::duration{retry_stuck}, [this] {
        publish_timer_ = 0;
        publish_now();
      });
}

void controller::await_workers() {
  loop_.cancel(std::exchange(await_timer_, 0));
  if (!observations_->quiescent(awaited_)) {
    await_timer_ = loop_.call_after(coalesce_for, [this] {
      await_timer_ = 0;
      await_workers();
    });
    return;
  }
  if (awaited_verdict_) counters_.verdict.add(event_loop::now() - *awaited_verdict_);
  awaited_verdict_.reset();
  writer_->collect();
}

}  // namespace sluice::reconcile
