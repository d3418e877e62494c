// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/keeper.hpp"

#include <algorithm>
#include <set>

#include <spdlog/spdlog.h>

#include "controlplane/model/text.hpp"

namespace sluice::discover {
namespace {

using namespace std::chrono_literals;

// Answers that come together are one change.
constexpr auto collect_for = 20ms;
constexpr std::chrono::milliseconds default_drain{30'000};

using proposals = std::map<std::string, known>;

void merge_into(model::service& s, const known& k) {
  const std::size_t configured = s.backends.size();
  const auto is_configured = [&](const ip_address& a) {
    const auto end = s.backends.begin() + static_cast<std::ptrdiff_t>(configured);
    const auto at = std::lower_bound(
        s.backends.begin(), end, a,
        [](const model::backend& b, const ip_address& x) { return b.address < x; });
    return at != end && at->address == a;
  };
  const auto add = [&](model::backend b, model::admin_state otherwise) {
    if (is_configured(b.address)) return;
    const auto asked = model::discovered_admin_of(s, b.address);
    b.admin = asked == model::admin_state::enabled ? otherwise : asked;
    s.backends.push_back(b);
  };
  for (const model::backend& b : k.backends) add(b, b.admin);
  for (const auto& g : k.gone) {
    model::backend b = g.backend;
    b.source = model::backend_source::vanished;
    const bool down = model::discovered_admin_of(s, b.address) == model::admin_state::down;
    if (is_configured(b.address)) continue;
    b.admin = down ? model::admin_state::down : model::admin_state::drain;
    s.backends.push_back(b);
  }
  model::normalise(s);
}

// next_of() is what is known once `answer` (null: nothing new) is taken.
known next_of(const model::service& s, const known& before,
              const std::vector<model::backend>* answer, wall_time now) {
  known next;
  next.backends = answer != nullptr ? *answer : before.backends;
  const auto is_there = [&](const ip_address& a) {
    const auto at = std::lower_bound(
        next.backends.begin(), next.backends.end(), a,
        [](const model::backend& b, const ip_address& x) { return b.address < x; });
    return at != next.backends.end() && at->address == a;
  };
  for (const auto& g : before.gone)
    if (g.until > now && !is_there(g.backend.address)) next.gone.push_back(g);
  const auto wait = s.drain_deadline.count() != 0 ? s.drain_deadline : default_drain;
  for (const model::backend& b : before.backends)
    if (!is_there(b.address)) next.gone.push_back({b, now + wait});
  return next;
}

}  // namespace

keeper::keeper(event_loop& loop, on_news news, on_save save, source_factory make)
    : loop_{loop}, news_{std::move(news)}, save_{std::move(save)}, make_{std::move(make)} {}

keeper::~keeper() {
  for (auto& [key, r] : sources_) r.source->stop();
  loop_.cancel(news_timer_);
  loop_.cancel(expiry_timer_);
}

void keeper::restore(const std::string& service, known before) {
  const std::lock_guard lock{mutex_};
  entries_[service].now = std::move(before);
}

void keeper::set_services(const model::desired_state& desired) {
  std::map<std::string, model::service> wanted;
  std::map<std::string, question> questions;
  std::map<std::string, std::vector<std::string>> users;  // by key
  for (const model::service& s : desired.services) {
    if (!s.discover.given()) continue;
    question q = question_of(s);
    users[q.key()].push_back(s.name);
    questions.emplace(q.key(), std::move(q));
    model::service& copy = wanted[s.name] = s;
    copy.backends.clear();
  }
  std::vector<std::string> forgotten;
  std::vector<std::unique_ptr<source>> ended;
  {
    const std::lock_guard lock{mutex_};
    services_ = std::move(wanted);
    for (auto e = entries_.begin(); e != entries_.end();) {
      if (services_.contains(e->first)) {
        ++e;
        continue;
      }
      forgotten.push_back(e->first);
      e = entries_.erase(e);
    }
    for (auto r = sources_.begin(); r != sources_.end();) {
      if (questions.contains(r->first)) {
        ++r;
        continue;
      }
      ended.push_back(std::move(r->second.source));
      r = sources_.erase(r);
    }
    for (auto& [key, names] : users) {
      running& r = sources_[key];
      r.status.services = names;
      for (const std::string& name : names) {
        entry& e = entries_[name];
        // What is known of another source stays until this one has answered.
        if (e.key != key) e.pending.reset();
        e.key = key;
        if (r.last) offer(services_.at(name), e, *r.last);
      }
      if (r.source) continue;
      const question& q = questions.at(key);
      r.status.type = model::to_string(q.what.kind);
      r.status.name = q.what.kind == model::discovery_kind::file ? q.what.path : q.what.name;
      r.source = make_(loop_, q, [this, k = key](report found) { on_report(k, std::move(found)); });
      r.source->start();
    }
  }
  for (auto& s : ended) s->stop();
  for (const std::string& name : forgotten) save_(name, nullptr);
  set_expiry();
}

void keeper::on_report(const std::string& key, report r) {
  const std::lock_guard lock{mutex_};
  const auto at = sources_.find(key);
  if (at == sources_.end()) return;
  source_status& status = at->second.status;
  if (!r) {
    ++status.errors;
    if (status.problem != r.error())
      spdlog::warn("discover {} {}: {}", status.type, status.name, r.error());
    status.problem = std::move(r.error());
    return;
  }
  if (!status.problem.empty()) spdlog::info("discover {} {}: answers", status.type, status.name);
  status.problem.clear();
  ++status.answers;
  status.last_success = std::chrono::system_clock::now();
  status.backends = r->size();
  for (const std::string& name : status.services) offer(services_.at(name), entries_.at(name), *r);
  at->second.last = std::move(*r);
}

// offer() looks at an answer as a service's; under mutex_.
void keeper::offer(const model::service& s, entry& e, const std::vector<found>& answer) {
  const auto refuse = [&](const std::string& why) {
    e.pending.reset();
    if (e.problem != why) spdlog::warn("{}: what is discovered is refused: {}", s.name, why);
    e.problem = why;
  };
  auto list = backends_of(s, answer);
  if (!list) return refuse(list.error());
  if (list->empty() && !e.now.backends.empty() && !s.discover.allow_empty)
    return refuse("the answer is empty (discover.allow-empty would take it)");
  if (*list == e.now.backends) {
    e.pending.reset();
    e.problem.clear();
    return;
  }
  e.pending = std::move(*list);
  tell_soon();
}

void keeper::tell_soon() {
  if (news_timer_ != 0) return;
  news_timer_ = loop_.call_after(collect_for, [this] {
    news_timer_ = 0;
    news_();
  });
}

bool keeper::refresh(const model::desired_state& desired, const checker& check) {
  const auto now = std::chrono::system_clock::now();
  proposals next;
  std::set<std::string> answered;
  for (const auto& [name, e] : entries_) {
    const auto service = services_.find(name);
    if (service == services_.end()) continue;
    known k = next_of(service->second, e.now, e.pending ? &*e.pending : nullptr, now);
    if (e.pending) answered.insert(name);
    if (e.pending || k != e.now) next.emplace(name, std::move(k));
  }
  if (next.empty()) return false;
  const auto with = [&](const proposals& some) {
    model::desired_state merged = merge(desired);
    for (model::service& s : merged.services) {
      const auto at = some.find(s.name);
      if (at == some.end()) continue;
      std::erase_if(s.backends, [](const model::backend& b) {
        return b.source != model::backend_source::configured;
      });
      merge_into(s, at->second);
    }
    return merged;
  };
  if (check(with(next)).empty()) {
    for (auto& [name, k] : next) settle(name, std::move(k));
  } else {
    // One bad answer must not hold up the others.
    for (auto& [name, k] : next) {
      const std::string why = check(with({{name, k}}));
      if (why.empty()) {
        settle(name, std::move(k));
        continue;
      }
      // Those whose time is up go nevertheless; or they would be up for ever.
      entry& e = entries_.at(name);
      known rest = next_of(services_.at(name), e.now, nullptr, now);
      if (rest != e.now) settle(name, std::move(rest));
      const std::lock_guard lock{mutex_};
      e.pending.reset();
      if (e.problem != why) spdlog::warn("{}: what is discovered is refused: {}", name, why);
      e.problem = why;
    }
  }
  set_expiry();
  return true;
}

void keeper::settle(const std::string& service, known next) {
  std::size_t gone = next.gone.size();
  const std::lock_guard lock{mutex_};
  entry& e = entries_.at(service);
  spdlog::info("{}: {} backends discovered, {} vanished ones drained", service,
               next.backends.size(), gone);
  e.now = std::move(next);
  e.pending.reset();
  e.problem.clear();
  save_(service, &e.now);
}

void keeper::set_expiry() {
  loop_.cancel(std::exchange(expiry_timer_, 0));
  std::optional<wall_time> first;
  for (const auto& [name, e] : entries_)
    for (const auto& g : e.now.gone) first = first ? std::min(*first, g.until) : g.until;
  if (!first) return;
  const auto left =
      std::max<std::chrono::system_clock::duration>(*first - std::chrono::system_clock::now(), 1ms);
  expiry_timer_ = loop_.call_after(left + 1ms, [this] {
    expiry_timer_ = 0;
    news_();
  });
}

model::desired_state keeper::merge(const model::desired_state& desired) const {
  model::desired_state out = desired;
  const std::lock_guard lock{mutex_};
  for (model::service& s : out.services) {
    if (!s.discover.given()) continue;
    if (const auto e = entries_.find(s.name); e != entries_.end()) merge_into(s, e->second.now);
  }
  return out;
}

bool keeper::has(const std::string& service, const ip_address& address) const {
  const std::lock_guard lock{mutex_};
  const auto e = entries_.find(service);
  if (e == entries_.end()) return false;
  const auto& k = e->second.now;
  return std::any_of(k.backends.begin(), k.backends.end(),
                     [&](const auto& b) { return b.address == address; }) ||
         std::any_of(k.gone.begin(), k.gone.end(),
                     [&](const auto& g) { return g.backend.address == address; });
}

std::vector<source_status> keeper::status() const {
  const std::lock_guard lock{mutex_};
  std::vector<source_status> out;
  for (const auto& [key, r] : sources_) out.push_back(r.status);
  return out;
}

std::vector<std::string> keeper::problems() const {
  const std::lock_guard lock{mutex_};
  std::vector<std::string> out;
  for (const auto& [key, r] : sources_)
    if (!r.status.problem.empty())
      out.push_back("discover " + r.status.type + " " + r.status.name + ": " + r.status.problem +
                    " (what was known stays)");
  for (const auto& [name, e] : entries_)
    if (!e.problem.empty())
      out.push_back("service " + name + ": what is discovered is refused: " + e.problem +
                    " (it stays as it was)");
  return out;
}

}  // namespace sluice::discover
