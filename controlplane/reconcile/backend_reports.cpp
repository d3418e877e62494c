// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/backend_reports.hpp"

#include <algorithm>

#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "dataplane/abi/address_text.hpp"

namespace sluice::reconcile {
namespace {

using agent::standing_report;

// An idle backend has its whole weight; a full one a hundredth, so that it is not forgotten.
constexpr double least_of_load = 0.01;
// Who is missing is looked for at most so often, however many send heartbeats.
constexpr std::chrono::milliseconds look_apart{20};

double part_of(const agent::asked_weight& w, std::uint32_t configured) {
  if (w.percent) return w.amount / 100.0;
  return configured == 0 ? 0 : static_cast<double>(w.amount) / configured;
}

std::int64_t ms_since_1970() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

void count(std::atomic<std::uint64_t>& n) {
  n.fetch_add(1, std::memory_order_relaxed);
}

decision::wish wish_of(agent::mode m) {
  switch (m) {
    case agent::mode::drain:
      return decision::wish::drain;
    case agent::mode::maint:
      return decision::wish::maint;
    case agent::mode::ready:
      break;
  }
  return decision::wish::none;
}

nlohmann::ordered_json agent_json(const standing_report& a) {
  nlohmann::ordered_json out = {{"mode", agent::to_string(a.mode)}};
  if (a.weight) out["weight"] = {{"amount", a.weight->amount}, {"percent", a.weight->percent}};
  if (a.most_connections) out["maxconn"] = *a.most_connections;
  if (a.down) out["down"] = {{"word", a.word}, {"text", a.text}};
  return out;
}

standing_report agent_from(const nlohmann::json& j) {
  standing_report out;
  const std::string mode = j.at("mode").get<std::string>();
  out.mode = mode == "drain"   ? agent::mode::drain
             : mode == "maint" ? agent::mode::maint
                               : agent::mode::ready;
  if (j.contains("weight"))
    out.weight = agent::asked_weight{j["weight"].at("amount").get<std::uint32_t>(),
                                     j["weight"].at("percent").get<bool>()};
  if (j.contains("maxconn")) out.most_connections = j["maxconn"].get<std::uint32_t>();
  if (j.contains("down")) {
    out.down = true;
    out.word = j["down"].at("word").get<std::string>();
    out.text = j["down"].at("text").get<std::string>();
  }
  return out;
}

}  // namespace

void backend_report::fill(const model::backend& b, publish::condition& c) const {
  c.asked.reset();
  c.wish = decision::wish::none;
  c.unfit = c.unheard = false;
  if (heartbeat) {
    c.unheard = !heartbeat->heard;
    c.unfit = heartbeat->missing;
    if (heartbeat->load)
      c.asked = std::max(1 - *heartbeat->load, least_of_load);
    else
      c.asked = heartbeat->asked;
  }
  if (!agent) return;
  if (agent->weight) c.asked = part_of(*agent->weight, b.weight);
  c.wish = wish_of(agent->mode);
  c.unfit = c.unfit || agent->down;
}

std::string backend_report::text() const {
  if (agent && agent->down)
    return "the agent says " + agent->word + (agent->text.empty() ? "" : ": " + agent->text);
  if (agent && agent->mode != agent::mode::ready)
    return "the agent says " + std::string{agent::to_string(agent->mode)};
  if (heartbeat && heartbeat->missing) return "no heartbeat any more";
  if (heartbeat && !heartbeat->heard) return "no heartbeat yet";
  return {};
}

backend_reports::backend_reports(event_loop& loop, change_callback on_change)
    : loop_{loop},
      on_change_{std::move(on_change)},
      poller_{loop, [this](const auto& target, const auto& line) { on_line(target, line); },
              [this](const auto& target, const auto& why) { on_failure(target, why); }} {}

backend_reports::~backend_reports() {
  loop_.cancel(timer_);
}

bool backend_reports::restore(const std::string& service, std::string_view text) {
  const auto all = nlohmann::json::parse(text, nullptr, false);
  if (!all.is_object()) return false;
  try {
    for (const auto& [address_text, j] : all.items()) {
      const auto address = parse_ip(address_text);
      if (!address) return false;
      const key k{service, *address};
      backend_report& r = reports_[k];
      if (j.contains("agent")) r.agent = agent_from(j["agent"]);
      if (j.contains("heartbeat")) {
        beats heard{.heard = true, .missing = j["heartbeat"].get<bool>()};
        if (j.contains("used") && !j.contains("agent")) heard.asked = j["used"].get<double>();
        r.heartbeat = heard;
      }
      if (j.contains("used")) used_before_[k] = j["used"].get<double>();
    }
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return true;
}

void backend_reports::set_services(const model::desired_state& merged) {
  std::map<key, backend_report> next;
  std::vector<agent::target> targets;
  patience_.clear();
  beats_of_.clear();
  asked_for_.clear();
  const auto now = event_loop::now();
  for (const auto& s : merged.services) {
    if (s.agent.off() && s.heartbeat.off()) continue;
    for (const auto& b : s.backends) {
      if (b.sorry) continue;
      const key k{s.name, b.address};
      backend_report r;
      if (const auto old = reports_.find(k); old != reports_.end()) r = std::move(old->second);
      if (s.agent.off()) {
        r.agent.reset();
      } else {
        const agent::target target{b.address, s.agent};
        auto& users = asked_for_[target];
        // Another service may have heard of it already.
        if (!r.agent && !users.empty()) r.agent = next.at(users.front()).agent;
        users.push_back(k);
        targets.push_back(target);
      }
      if (s.heartbeat.off()) {
        r.heartbeat.reset();
      } else {
        if (!r.heartbeat) r.heartbeat.emplace();
        auto& deadline = r.heartbeat->deadline;
        const auto latest = now + s.heartbeat.patience();
        if (deadline == event_loop::time_point{} || deadline > latest) deadline = latest;
        patience_[k] = s.heartbeat.patience();
        beats_of_[b.address].push_back(k);
      }
      next.emplace(k, std::move(r));
    }
  }
  reports_ = std::move(next);
  poller_.set_targets(targets);
  set_deadline();
}

const backend_report* backend_reports::find(const std::string& service,
                                            const ip_address& backend) const {
  const auto found = reports_.find({service, backend});
  return found == reports_.end() ? nullptr : &found->second;
}

std::optional<double> backend_reports::used_before(const std::string& service,
                                                   const ip_address& backend) const {
  const auto found = used_before_.find({service, backend});
  return found == used_before_.end() ? std::nullopt : std::optional{found->second};
}

std::size_t backend_reports::beat(const std::string& service, const ip_address& backend,
                                  std::optional<double> load) {
  const auto now = event_loop::now();
  std::vector<key> changed;
  std::size_t taken = 0;
  const auto take = [&](const key& k, std::chrono::milliseconds patience) {
    backend_report& r = reports_.at(k);
    auto& heard = r.heartbeat;
    ++taken;
    count(r.figures->beats);
    r.figures->beat_ms.store(ms_since_1970(), std::memory_order_relaxed);
    if (!heard->heard || heard->missing || heard->load != load || heard->asked)
      changed.push_back(k);
    heard = beats{.heard = true, .load = load, .deadline = now + patience};
  };
  if (!service.empty()) {
    if (const auto k = patience_.find({service, backend}); k != patience_.end())
      take(k->first, k->second);
  } else {
    if (const auto found = beats_of_.find(backend); found != beats_of_.end())
      for (const key& k : found->second) take(k, patience_.at(k));
  }
  if (taken != 0 && timer_ == 0) set_deadline();
  for (const key& k : changed) on_change_(k.first, k.second);
  return taken;
}

void backend_reports::on_line(const agent::target& target, const std::string& line) {
  const auto users = asked_for_.find(target);
  if (users == asked_for_.end()) return;
  const agent::report said = agent::parse(line);
  const std::vector<key> keys = users->second;  // a callback may change the set
  for (const key& k : keys) {
    const auto found = reports_.find(k);
    if (found == reports_.end()) continue;
    backend_report& r = found->second;
    count(r.figures->answers);
    r.figures->answered_ms.store(ms_since_1970(), std::memory_order_relaxed);
    const std::string problem = std::exchange(r.agent_problem, {});
    const bool other_line = r.agent_line != line;
    r.agent_line = line;
    if (!said.unknown.empty()) {
      r.agent_problem = "not understood: " + said.unknown.front();
      if (other_line)
        spdlog::warn("{}: the agent of backend {} says '{}', which is no word of the protocol",
                     k.first, format_ip(k.second), said.unknown.front());
    }
    standing_report now = r.agent.value_or(standing_report{});
    const bool says_other = now.take(said);
    const bool same = r.agent ? !says_other : now == standing_report{};
    r.agent = now;
    if (!same || r.agent_problem != problem) on_change_(k.first, k.second);
  }
}

void backend_reports::on_failure(const agent::target& target, const std::string& why) {
  const auto users = asked_for_.find(target);
  if (users == asked_for_.end()) return;
  const std::vector<key> keys = users->second;  // a callback may change the set
  for (const key& k : keys) {
    const auto found = reports_.find(k);
    if (found == reports_.end()) continue;
    count(found->second.figures->failures);
    if (std::exchange(found->second.agent_problem, why) != why) on_change_(k.first, k.second);
  }
}

void backend_reports::set_deadline() {
  std::optional<event_loop::time_point> first;
  for (const auto& [k, patience] : patience_) {
    const auto& heard = reports_.at(k).heartbeat;
    if (heard->heard && !heard->missing && (!first || heard->deadline < *first))
      first = heard->deadline;
  }
  loop_.cancel(std::exchange(timer_, 0));
  if (first)
    timer_ = loop_.call_at(std::max(*first, event_loop::now() + look_apart), [this] {
      timer_ = 0;
      look_for_missing();
    });
}

void backend_reports::look_for_missing() {
  const auto now = event_loop::now();
  std::vector<key> gone;
  for (const auto& [k, patience] : patience_) {
    auto& heard = reports_.at(k).heartbeat;
    if (!heard->heard || heard->missing || heard->deadline > now) continue;
    heard->missing = true;
    gone.push_back(k);
  }
  set_deadline();
  for (const key& k : gone) on_change_(k.first, k.second);
}

std::string backend_reports::to_text(const model::service& service,
                                     const std::vector<std::optional<double>>& used) const {
  nlohmann::ordered_json out;
  for (std::size_t i = 0; i < service.backends.size(); ++i) {
    const backend_report* r = find(service.name, service.backends[i].address);
    if (r == nullptr) continue;
    nlohmann::ordered_json j;
    if (r->agent) j["agent"] = agent_json(*r->agent);
    if (r->heartbeat && r->heartbeat->heard) j["heartbeat"] = r->heartbeat->missing;
    if (used[i]) j["used"] = *used[i];
    if (!j.is_null()) out[format_ip(service.backends[i].address)] = std::move(j);
  }
  return out.is_null() ? std::string{} : out.dump();
}

}  // namespace sluice::reconcile
