// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/cluster_keeper.hpp"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr const char* cluster_author = "kubernetes";
constexpr auto changes_together = 50ms;  // what comes together is one revision
constexpr auto again_after = 10s;        // where something could not be
constexpr std::size_t most_named = 5;    // Services, in a revision's reason

// reason_of() names the Services that a change is about.
std::string reason_of(const std::set<std::string>& keys) {
  std::string out = keys.size() == 1 ? "Service " : "Services ";
  std::size_t n = 0;
  for (const std::string& key : keys) {
    if (n == most_named) return out + " and " + std::to_string(keys.size() - n) + " more";
    out += (n++ == 0 ? "" : ", ") + key;
  }
  return out;
}

std::string text_of(const change_error& e) {
  return e.errors.empty() ? "it is refused" : e.errors.front().to_string();
}

}  // namespace

tl::expected<void, std::string> remove_cluster_services(controller& c) {
  const auto is_cluster = [](const model::service& s) {
    return s.owner == model::service_owner::kubernetes;
  };
  const auto done = c.change(
      {[&](const model::desired_state& now) {
         model::desired_state next = now;
         std::erase_if(next.services, is_cluster);
         return tl::expected<model::desired_state, change_error>{std::move(next)};
       },
       cluster_author, "controlplane.kubernetes is not configured any more", false, std::nullopt});
  if (!done) return tl::unexpected{text_of(done.error())};
  return {};
}

cluster_keeper::cluster_keeper(event_loop& loop, controller& c, const kubernetes_config& config,
                               model::service common)
    : loop_{loop},
      controller_{c},
      config_{config},
      common_{std::move(common)},
      source_{loop, config_, [this] { on_news(); }},
      writer_{loop, discover::api_access{config_.server, config_.ca, config_.token_file}} {}

cluster_keeper::~cluster_keeper() {
  stop();
  for (const auto timer : {news_timer_, again_timer_}) loop_.cancel(timer);
}

void cluster_keeper::start() {
  thread_ = std::thread{[this] { run(); }};
  source_.start();
}

void cluster_keeper::stop() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void cluster_keeper::on_news() {
  if (news_timer_ != 0) return;
  news_timer_ = loop_.call_after(changes_together, [this] {
    news_timer_ = 0;
    {
      const std::lock_guard lock{mutex_};
      next_ = work{source_.services(), source_.listed()};
    }
    wake_.notify_one();
  });
}

void cluster_keeper::run() {
  std::unique_lock lock{mutex_};
  while (true) {
    wake_.wait(lock, [this] { return stop_ || next_; });
    if (stop_) return;
    const work w = *std::exchange(next_, std::nullopt);
    lock.unlock();
    if (auto result = change(w)) loop_.invoke([&] { done(std::move(*result)); });
    lock.lock();
  }
}

std::optional<cluster_keeper::outcome> cluster_keeper::change(const work& w) {
  // An operator's change may come between the plan and its revision.
  for (int tries = 0; tries < 10; ++tries) {
    const auto [revision, now] = controller_.desired();
    const auto check = [this](const model::desired_state& state) -> std::string {
      const auto errors = config::check(state, controller_.context());
      return errors.empty() ? std::string{} : errors.front().to_string();
    };
    auto plan = discover::make_plan(now, {config_, common_, w.services, w.listed, check});
    outcome out{plan.next, plan.problems};
    if (plan.next == now) return out;
    const auto changed =
        controller_.change({[&](const model::desired_state&) {
                              return tl::expected<model::desired_state, change_error>{plan.next};
                            },
                            cluster_author, reason_of(plan.changed), false, revision});
    if (changed) return out;
    if (changed.error().why == refusal::conflict) continue;
    spdlog::debug("kubernetes: {}; the Services are taken one by one", text_of(changed.error()));
    one_by_one(plan, out);
    return out;
  }
  spdlog::warn("kubernetes: the desired state changes all the time; tried again");
  return std::nullopt;
}

// one_by_one() finds those that cannot be; the others must not wait for them.
void cluster_keeper::one_by_one(const discover::cluster_plan& plan, outcome& out) {
  for (const std::string& key : plan.changed) {
    const auto changed = controller_.change(
        {[&](const model::desired_state& now) {
           return tl::expected<model::desired_state, change_error>{discover::only(now, plan, key)};
         },
         cluster_author, reason_of({key}), false, std::nullopt});
    if (!changed) out.problems[key] = text_of(changed.error());
  }
  out.state = controller_.desired().second;
}

void cluster_keeper::done(outcome result) {
  for (const auto& [key, why] : result.problems) {
    if (last_) {
      const auto before = last_->problems.find(key);
      if (before != last_->problems.end() && before->second == why) continue;
    }
    spdlog::warn("kubernetes: Service {}: {}", key, why);
    if (const auto s = source_.services().find(key); s != source_.services().end())
      writer_.warn(s->second, why);
  }
  last_ = std::move(result);
  write_back();
  loop_.cancel(std::exchange(again_timer_, 0));
  if (!last_->problems.empty())
    again_timer_ = loop_.call_after(again_after, [this] {
      again_timer_ = 0;
      on_news();
    });
}

// write_back() compares what Services say with what they have.
void cluster_keeper::write_back() {
  std::map<std::string, discover::cluster_writer::status> wanted;
  for (const auto& [key, s] : source_.services()) {
    std::vector<std::string> vips;
    if (discover::is_ours(s, config_)) {
      vips = discover::vips_of(last_->state, s);
      given_[key].insert(vips.begin(), vips.end());
      if (vips == s.addresses && !s.other_ingress) continue;
    } else {
      // What it has from us goes; what it has from others is not ours to touch.
      const auto had = given_.find(key);
      if (had == given_.end() || s.other_ingress) continue;
      std::copy_if(s.addresses.begin(), s.addresses.end(), std::back_inserter(vips),
                   [&](const std::string& a) { return !had->second.contains(a); });
      given_.erase(had);
      if (vips == s.addresses) continue;
    }
    wanted[key] = {s.version, std::move(vips)};
  }
  std::erase_if(given_, [&](const auto& g) { return !source_.services().contains(g.first); });
  writer_.set(std::move(wanted));
}

std::vector<std::string> cluster_keeper::problems() const {
  std::vector<std::string> out;
  for (const auto& s : source_.status())
    if (!s.problem.empty())
      out.push_back("kubernetes: Services of " + s.name + ": " + s.problem +
                    " (what was known stays)");
  if (last_)
    for (const auto& [key, why] : last_->problems)
      out.push_back("kubernetes: Service " + key + ": " + why);
  if (!writer_.problem().empty()) out.push_back("kubernetes: " + writer_.problem());
  return out;
}

}  // namespace sluice::reconcile
