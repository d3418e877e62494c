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
          std::make_shared<publish::observation_follower>(node.observation_segment_path())},
      publication_{loop, observations_, events_,
                   [this] { steering_->set(publication_.writer().view()); }} {}

controller::~controller() {
  for (const auto timer : {look_timer_, decision_timer_}) loop_.cancel(timer);
}

void controller::load_seeds() {
  if (auto stored = keeper_->load_verdicts()) {
    for (const auto& v : *stored) seeds_[{v.service, v.backend}] = v.healthy;
  } else {
    spdlog::warn("{}: the health verdicts are lost", stored.error());
  }
  // The live segment is newer: the file is written a second later.
  for (const auto& v : publish::health_shown(publication_.writer().view()))
    seeds_[{v.service, v.backend}] = v.up;
}

tl::expected<void, std::string> controller::start() {
  observations_->refresh();
  if (auto opened = publication_.open(node_, settings_); !opened) return opened;
  load_seeds();
  auto latest = keeper_->load_latest();
  if (!latest) return tl::unexpected{latest.error()};

  path_ = std::make_unique<probe_path>(node_, [this](const auto& target) { on_probe_way(target); });
  health::checker_options options;
  options.programs_in = node_.controlplane.checks;
  options.make_socket = [this](const auto& target) { return path_->make_socket(target); };
  health_ = std::make_unique<health::health_checker>(
      loop_, [this](const auto& target, const auto& verdict) { on_verdict(target, verdict); },
      std::move(options));
  hops_ = std::make_unique<next_hops>(loop_, node_,
                                      [this](const auto& changed) { on_neighbours(changed); });
  path_->set_hops(*hops_);
  if (!hops_->netlink_error().empty()) spdlog::warn("{}", hops_->netlink_error());
  steering_ = std::make_unique<steering>(node_);
  announcer_ = std::make_unique<announcer>(node_, events_);
  drain_ = load_node_drain(*keeper_);
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
    const auto shown = [&] {
      return publish::lists_shown(publication_.writer().segment(), s.name);
    };
    (void)lists_.find(s.allow, [&] { return shown().allow; });
    (void)lists_.find(s.deny, [&] { return shown().deny; });
  }
  for (const auto& e : open_probe_path(desired_))
    spdlog::warn("revision {}: {}", revision_, e.to_string());
  if (auto opened = open_discovery(); !opened) return opened;
  if (auto opened = open_reports(); !opened) return opened;
  install(desired_, revision_);
  spdlog::info("revision {}: {} services", revision_, desired_.services.size());
  look_around();
  return {};
}

// open_discovery() takes up what was known of discovered backends.
tl::expected<void, std::string> controller::open_discovery() {
  if (node_.controlplane.kubernetes)
    slices_ = std::make_unique<discover::cluster_slices>(loop_, *node_.controlplane.kubernetes);
  discover_ = std::make_unique<discover::keeper>(
      loop_, [this] { refresh_discovered(); },
      [this](const std::string& service, const discover::known* now) {
        keeper_->save_discovered_later(service, now ? discover::to_text(*now) : std::string{});
      },
      [this](event_loop& loop, const discover::question& q, discover::on_report report_to) {
        if (slices_)
          if (auto shared = slices_->source_for(q, report_to)) return shared;
        return discover::make_source(loop, q, std::move(report_to));
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

// open_reports() takes up what backends had said of themselves.
tl::expected<void, std::string> controller::open_reports() {
  reports_ = std::make_unique<backend_reports>(
      loop_, [this](const auto& service, const auto& backend) { on_report(service, backend); });
  const auto stored = keeper_->load_reports();
  if (!stored) return tl::unexpected{stored.error()};
  for (const auto& [service, text] : *stored) {
    if (!reports_->restore(service, text))
      spdlog::error("{}: what its backends had said of themselves is lost", service);
    reported_[service] = text;
    unsaved_reports_.insert(service);
  }
  return {};
}

// refresh_discovered() takes over what sources have found since.
void controller::refresh_discovered() {
  const auto check = [&](const model::desired_state& merged) -> std::string {
    if (const auto errors = config::check(merged, context_); !errors.empty())
      return errors.front().to_string();
    if (std::string why = steering_->refusal(merged); !why.empty()) return why;
    return publication_.writer().check(publish::all_healthy(
        merged, {settings_,
                 {},
                 publication_.state().revision,
                 publication_.state().workers,
                 [&](const model::prefix_set& set) { return lists_.find(set); }}));
  };
  if (discover_->refresh(installed_, check)) install(installed_, publication_.state().revision);
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
    return publication_.writer().check(publish::all_healthy(
        merged, {settings_, {}, revision_, publication_.state().workers, find_list}));
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
    s.revision = publication_.state().revision;
    s.generation = publication_.writer().generation();
    s.published = publication_.current();
    s.services = services_;
    s.tables = publish::shown_tables::copy(publication_.writer().view());
    s.base_instance = publication_.writer().base_instance();
    s.segment_instance = publication_.writer().segment().instance();
    if (const auto why = publication_.problem(); !why.empty())
      s.warnings.push_back("not published: " + why);
    if (!hops_->netlink_error().empty()) s.warnings.push_back(hops_->netlink_error());
    for (auto& p : discover_->problems()) s.warnings.push_back(std::move(p));
    if (companion_.problems)
      for (auto& p : companion_.problems()) s.warnings.push_back(std::move(p));
    for (auto& p : lists_.problems()) s.warnings.push_back(std::move(p));
    for (auto& p : steering_->problems()) s.warnings.push_back(std::move(p));
    for (auto& p : announcer_->problems()) s.warnings.push_back(std::move(p));
    s.announced = announcer_->all();
    s.drain = drain_;
    for (auto& p : path_->problems()) s.warnings.push_back(std::move(p));
    if (auto e = keeper_->last_error(); !e.empty()) s.warnings.push_back(std::move(e));
    if (auto e = observations_->last_error(); !e.empty()) s.warnings.push_back(std::move(e));
    s.admin = admin_log_.all();
    for (const auto& service : services_)
      if (service->decided.sorry)
        s.warnings.push_back("service " + service->config.name +
                             ": no backend can serve, so the sorry server does");
      else if (service->decided.panic)
        s.warnings.push_back("service " + service->config.name +
                             ": too few backends can serve, so health is ignored");
    return s;
  });
}

std::vector<discover::source_status> controller::sources() {
  auto all = discover_->status();
  if (companion_.sources)
    for (auto& s : loop_.invoke(companion_.sources)) all.push_back(std::move(s));
  return all;
}

std::string controller::summary() {
  std::size_t backends = 0;
  std::size_t up = 0;
  for (const auto& s : services_)
    for (const auto& b : s->backends) {
      ++backends;
      up += b.condition.health == abi::shown_health::up ||
            b.condition.health == abi::shown_health::unchecked;
    }
  return "revision " + std::to_string(publication_.state().revision) + ": " +
         std::to_string(services_.size()) + " services, " + std::to_string(up) + " of " +
         std::to_string(backends) + " backends up; data plane " + shown_data_plane_ +
         (publication_.current() ? "" : "; not published");
}

health::checker_counters controller::health_counters() {
  return loop_.invoke([this] { return health_->counters(); });
}

std::size_t controller::beat(const std::string& service, const ip_address& backend,
                             std::optional<double> load) {
  return loop_.invoke([&] { return reports_->beat(service, backend, load); });
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
  // What is discovered says where it listens.
  const bool own = b.port != 0 && b.source != model::backend_source::configured;
  return health::make_target(b.address, own ? b.port : s.port.first, s.health,
                             path_->path_for(s, b));
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
      if (!is_checked(s, s.backends[b])) continue;
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
    const model::backend* old = before ? model::find_backend(before->config, address) : nullptr;
    if (old != nullptr)
      b.condition.full =
          before->backends[static_cast<std::size_t>(old - before->config.backends.data())]
              .condition.full;
    b.way = hops_->find(address, config.forward);
    b.condition.next_hop = b.way.hop;
    if (const backend_report* r = reports_->find(config.name, address)) {
      b.report = *r;
      r->fill(config.backends[i], b.condition);
    }
    if (!is_checked(config, config.backends[i])) {
      b.health_text = "not checked";
      continue;
    }
    const health::target target = target_of(config, config.backends[i]);
    b.condition.health = to_shown(health_->state_of(target));
    b.condition.weight = health_->weight_of(target);
    b.probed_through = path_->through(target);
    if (old != nullptr && is_checked(before->config, *old)) {
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
  if (before == nullptr) {
    for (const model::backend& b : config.backends)
      if (const auto used = reports_->used_before(config.name, b.address)) {
        decision::backend_memory known{.address = b.address};
        known.weight = decision::steered{*used, *used, *used, event_loop::now()};
        next->decided.next.backends.push_back(std::move(known));
      }
  } else {
    next->published.name = config.name;
    next->decided.next = before->decided.next;
    next->decided.panic = before->decided.panic;
    next->hints = before->hints;
  }
  decide(*next, events_);
  return next;
}

void controller::install(const model::desired_state& configured, std::uint64_t revision) {
  if (&configured != &installed_) installed_ = configured;
  discover_->set_services(installed_);
  const model::desired_state next = discover_->merge(installed_);
  reports_->set_services(next);
  set_targets(next);
  limited_.clear();
  suspects_.forget();
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
    const auto& installed = services.back()->config;
    if (!installed.agent.off() || std::any_of(installed.backends.begin(), installed.backends.end(),
                                              [](const auto& b) { return b.max_connections != 0; }))
      limited_.push_back(static_cast<std::uint32_t>(services.size() - 1));
    if (!installed.agent.off() || !installed.heartbeat.off())
      unsaved_reports_.insert(installed.name);
  }
  for (const auto& [service, text] : reported_) unsaved_reports_.insert(service);
  services_ = std::move(services);
  publication_.state() = std::move(state);
  lists_.keep_only(next);
  quorums_changed_ = true;
  // Seeds are for the first state only: what is added later begins unknown.
  seeds_.clear();
  publication_.now();
}

std::uint16_t controller::workers() const {
  if (const auto data_plane = observations_->current())
    return static_cast<std::uint16_t>(data_plane->workers());
  return publish::workers_of(node_);
}

}  // namespace sluice::reconcile
