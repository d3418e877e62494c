// SPDX-License-Identifier: Apache-2.0
#include "controlplane/decision/decision.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <utility>

namespace sluice::decision {
namespace {

using std::chrono::milliseconds;

// candidate: one backend on its way through the rules.
struct candidate {
  const model::backend* config;
  finding found;
  std::uint32_t weight;
  bool wanted;
  bool up;
  bool held;

  [[nodiscard]] bool healthy() const noexcept { return wanted && up && found.reachable; }
  [[nodiscard]] bool able() const noexcept { return healthy() && !held && !found.full; }
};

class ruling {
 public:
  ruling(const model::service& service, std::span<const finding> findings, const memory& before,
         time_point now)
      : service_{service}, before_{before}, now_{now} {
    out_.backends.resize(findings.size());
    out_.next.backends.resize(findings.size());
    for (std::size_t i = 0; i < findings.size(); ++i) {
      finding found = findings[i];
      const model::backend& b = service.backends[i];
      if (b.sorry) found.health = abi::shown_health::unchecked;
      if (b.admin != model::admin_state::enabled) found.wish = wish::none;
      if (b.admin == model::admin_state::up)
        found.health = abi::shown_health::up;
      else if (b.admin == model::admin_state::down || found.wish == wish::maint || found.unfit)
        found.health = abi::shown_health::down;
      findings_.push_back(found);
      remember(i, found);
    }
    steer_weights();
    for (std::size_t i = 0; i < findings.size(); ++i) candidates_.push_back(judge(i, findings_[i]));
  }

  verdict run() {
    choose_tier();
    if (out_.tier) {
      give_weights([&](const candidate& c) {
        return serves(c) && !c.config->sorry && c.config->tier == *out_.tier;
      });
    } else if (!say_sorry()) {
      ignore_health();
    }
    for (std::size_t i = 0; i < candidates_.size(); ++i) conclude(i);
    decide_announcement();
    out_.next.tier = out_.tier;
    out_.next.left = before_.left;
    if (out_.tier && out_.next.left && *out_.tier <= *out_.next.left) out_.next.left.reset();
    if (before_.tier && (!out_.tier || *out_.tier > *before_.tier))
      out_.next.left = std::min(before_.left.value_or(*before_.tier), *before_.tier);
    return std::move(out_);
  }

 private:
  void again(time_point t) {
    if (!out_.again || t < *out_.again) out_.again = t;
  }

  // remember() takes over what was known of a backend, and notes what has changed.
  void remember(std::size_t i, const finding& found) {
    const model::backend& b = service_.backends[i];
    const auto& known = before_.backends;
    const auto old = std::lower_bound(
        known.begin(), known.end(), b.address,
        [](const backend_memory& m, const ip_address& address) { return m.address < address; });
    backend_memory& m = out_.next.backends[i];
    if (old != known.end() && old->address == b.address) m = *old;
    m.address = b.address;
    const bool down = found.health == abi::shown_health::down;
    if (down) {
      const bool asked_for = b.admin == model::admin_state::down || found.wish == wish::maint;
      if (!m.down && !asked_for) m.falls.push_back(now_);
      m.cold = true;
      m.ramp_from.reset();
    }
    m.down = down;
    // What is older than damping asks for will not matter any more.
    const auto most = static_cast<std::size_t>(service_.flap_damping.falls);
    if (m.falls.size() > most)
      m.falls.erase(m.falls.begin(), m.falls.end() - static_cast<std::ptrdiff_t>(most));
    if (b.admin != model::admin_state::drain && found.wish != wish::drain)
      m.drained_at.reset();
    else if (!m.drained_at)
      m.drained_at = now_;
  }

  // steer_weights() is rule 0.
  void steer_weights() {
    std::vector<std::optional<double>> asked;
    std::vector<std::optional<steered>> weights;
    for (std::size_t i = 0; i < findings_.size(); ++i) {
      asked.push_back(findings_[i].asked);
      weights.push_back(out_.next.backends[i].weight);
    }
    out_.next.steering = before_.steering;
    if (const auto then = steer(service_.weights, asked, weights, out_.next.steering, now_))
      again(*then);
    for (std::size_t i = 0; i < weights.size(); ++i) out_.next.backends[i].weight = weights[i];
  }

  // weight_of() is what a backend has when it is in use.
  [[nodiscard]] std::uint32_t weight_of(std::size_t i) const {
    const model::backend& b = service_.backends[i];
    if (b.weight == 0) return 0;
    const std::uint32_t weight = findings_[i].weight.value_or(b.weight);
    const auto& part = out_.next.backends[i].weight;
    if (!part || weight == 0 || part->used == 1) return weight;
    if (part->used <= 0) return 0;
    return static_cast<std::uint32_t>(std::clamp(std::round(weight * part->used), 1.0, 65535.0));
  }

  candidate judge(std::size_t i, const finding& found) {
    const model::backend& b = service_.backends[i];
    const std::uint32_t weight = weight_of(i);
    candidate c{&b,
                found,
                weight,
                weight != 0 && found.wish == wish::none &&
                    (b.admin == model::admin_state::enabled || b.admin == model::admin_state::up),
                false,
                false};
    c.up = found.health == abi::shown_health::up || found.health == abi::shown_health::unchecked;
    const model::flap_damping& damping = service_.flap_damping;
    const auto& falls = out_.next.backends[i].falls;
    if (!damping.off() && falls.size() == damping.falls &&
        falls.back() - falls.front() <= damping.within && now_ < falls.back() + damping.hold) {
      c.held = true;
      out_.backends[i].until = falls.back() + damping.hold;
      if (c.up) again(falls.back() + damping.hold);
    }
    return c;
  }

  [[nodiscard]] bool serves(const candidate& c) const noexcept {
    return held_let_in_ ? c.healthy() && !c.found.full : c.able();
  }

  struct capacity {
    std::uint64_t wanted{0};
    std::uint64_t able{0};

    [[nodiscard]] bool reaches(unsigned percent) const noexcept {
      return able != 0 && able * 100 >= wanted * percent;
    }
  };

  // preferred() is rule 2.
  [[nodiscard]] std::optional<std::uint8_t> preferred(
      const std::map<std::uint8_t, capacity>& tiers) const {
    const unsigned enough =
        std::max(service_.failover.tier_threshold, service_.failover.panic_threshold);
    std::optional<std::uint8_t> best;
    capacity most;
    for (const auto& [tier, c] : tiers) {
      if (c.reaches(enough)) return tier;
      if (!c.reaches(service_.failover.panic_threshold)) continue;
      if (!best || c.able * most.wanted > most.able * c.wanted) {
        best = tier;
        most = c;
      }
    }
    return best;
  }

  [[nodiscard]] std::map<std::uint8_t, capacity> tiers() const {
    std::map<std::uint8_t, capacity> out;
    for (const candidate& c : candidates_) {
      if (!c.wanted || c.config->sorry) continue;
      out[c.config->tier].wanted += c.weight;
      if (serves(c)) out[c.config->tier].able += c.weight;
    }
    return out;
  }

  void choose_tier() {
    auto all = tiers();
    auto chosen = preferred(all);
    if (!chosen) {
      held_let_in_ = true;
      all = tiers();
      chosen = preferred(all);
    }
    out_.tier = chosen;
    if (!chosen || !before_.tier || *chosen >= *before_.tier) return;
    if (!before_.left || *chosen < *before_.left) return;
    const unsigned enough =
        std::max(service_.failover.tier_threshold, service_.failover.panic_threshold);
    if (!all[*before_.tier].reaches(enough)) return;
    const time_point since = before_.better == chosen ? before_.better_since : now_;
    if (now_ >= since + service_.failover.failback) return;
    out_.tier = before_.tier;
    out_.next.better = chosen;
    out_.next.better_since = since;
    again(since + service_.failover.failback);
  }

  template <class Test>
  void give_weights(Test&& passes) {
    for (std::size_t i = 0; i < candidates_.size(); ++i)
      if (passes(candidates_[i])) out_.backends[i].weight = candidates_[i].weight;
  }

  // say_sorry() tells whether the sorry servers have to serve, and can.
  bool say_sorry() {
    bool there = false;
    for (const candidate& c : candidates_) {
      if (!serves(c)) continue;
      if (!c.config->sorry) return false;
      there = true;
    }
    if (!there) return false;
    out_.sorry = true;
    give_weights([&](const candidate& c) { return serves(c); });
    return true;
  }

  // ignore_health() is the end of rule 4.
  void ignore_health() {
    for (const bool with_hop : {true, false}) {
      std::optional<std::uint8_t> tier;
      const auto passes = [&](const candidate& c) {
        return c.wanted && !c.config->sorry && !c.found.full && (c.found.reachable || !with_hop);
      };
      for (const candidate& c : candidates_)
        if (passes(c)) tier = tier ? std::min(*tier, c.config->tier) : c.config->tier;
      if (!tier) continue;
      out_.panic = true;
      give_weights([&](const candidate& c) { return passes(c) && c.config->tier == *tier; });
      return;
    }
  }

  // ramp() is rule 5, of a backend that is in use.
  void ramp(backend_decision& d, backend_memory& m) {
    const model::slow_start& slow = service_.slow_start;
    if (std::exchange(m.cold, false) && !slow.off()) m.ramp_from = now_;
    if (!m.ramp_from) return;
    const auto passed = now_ - *m.ramp_from;
    if (slow.off() || passed >= slow.time) {
      m.ramp_from.reset();
      return;
    }
    const auto step = static_cast<std::uint64_t>(passed * slow.steps / slow.time);
    const std::uint64_t parts = slow.steps + 1u;
    d.why = standing::slow_start;
    d.until = *m.ramp_from + slow.time;
    d.weight = static_cast<std::uint32_t>(
        std::max<std::uint64_t>((d.weight * (step + 1) + parts / 2) / parts, 1));
    // Rounded up: a moment too early would be the same step.
    const auto whole = std::chrono::nanoseconds{slow.time} * static_cast<std::int64_t>(step + 1);
    again(*m.ramp_from + (whole + std::chrono::nanoseconds{slow.steps - 1}) / slow.steps);
  }

  // conclude() says why, and what that does to the backend's connections.
  void conclude(std::size_t i) {
    const candidate& c = candidates_[i];
    backend_decision& d = out_.backends[i];
    backend_memory& m = out_.next.backends[i];
    const auto held_until = std::exchange(d.until, std::nullopt);
    d.keeps = c.found.health != abi::shown_health::down || d.weight != 0;
    if (d.weight != 0) {
      d.why = out_.panic ? standing::panic : out_.sorry ? standing::sorry : standing::in_use;
      if (!out_.panic) ramp(d, m);
    } else if (m.drained_at) {
      d.why = standing::draining;
      if (const milliseconds deadline = service_.drain_deadline; deadline.count() != 0) {
        d.until = *m.drained_at + deadline;
        if (now_ >= *d.until) {
          d.why = standing::drained;
          d.until.reset();
          d.keeps = false;
        } else {
          again(*d.until);
        }
      }
    } else if (c.config->admin == model::admin_state::down) {
      d.why = standing::forced_down;
    } else if (c.found.wish == wish::maint) {
      d.why = standing::maintenance;
    } else if (c.weight == 0) {
      d.why = standing::off;
    } else if (!c.up) {
      d.why = standing::down;
    } else if (!c.found.reachable) {
      d.why = standing::unreachable;
    } else if (c.found.full) {
      d.why = standing::full;
    } else if (c.held) {
      d.why = standing::flapping;
      d.until = held_until;
    } else {
      d.why = standing::standby;
    }
  }

  // enough() tells whether some tier has so much of its weight healthy.
  [[nodiscard]] bool enough(unsigned percent) const {
    std::map<std::uint8_t, capacity> all;
    for (const candidate& c : candidates_) {
      if (!c.wanted || c.config->sorry) continue;
      all[c.config->tier].wanted += c.weight;
      if (c.healthy()) all[c.config->tier].able += c.weight;
    }
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& tier) { return tier.second.reaches(percent); }) ||
           (percent == 0 && out_.sorry);
  }

  // decide_announcement() is rule 10.
  void decide_announcement() {
    const model::quorum& quorum = service_.quorum;
    memory& m = out_.next;
    m.withdrawn = before_.withdrawn;
    if (before_.announced || !before_.withdrawn) {
      out_.announce = enough(quorum.percent);
      m.withdrawn = before_.announced && !out_.announce;
    } else if (enough(std::min(100u, unsigned{quorum.percent} + quorum.hysteresis))) {
      const time_point since = before_.enough_since.value_or(now_);
      out_.announce = now_ >= since + quorum.hold;
      if (!out_.announce) {
        m.enough_since = since;
        again(since + quorum.hold);
      } else {
        m.withdrawn = false;
      }
    }
    m.announced = out_.announce;
  }

  const model::service& service_;
  const memory& before_;
  time_point now_;
  bool held_let_in_{false};
  std::vector<finding> findings_;  // after what was forced
  std::vector<candidate> candidates_;
  verdict out_;
};

}  // namespace

std::string_view to_string(standing s) noexcept {
  switch (s) {
    case standing::in_use:
      return "in use";
    case standing::slow_start:
      return "slow start";
    case standing::panic:
      return "panic";
    case standing::standby:
      return "standby";
    case standing::flapping:
      return "flapping";
    case standing::down:
      return "down";
    case standing::unreachable:
      return "unreachable";
    case standing::draining:
      return "draining";
    case standing::drained:
      return "drained";
    case standing::forced_down:
      return "forced down";
    case standing::off:
      return "off";
    case standing::full:
      return "full";
    case standing::sorry:
      return "sorry";
    case standing::maintenance:
      return "maintenance";
  }
  return "unknown";
}

verdict decide(const model::service& service, std::span<const finding> findings,
               const memory& before, time_point now) {
  assert(findings.size() == service.backends.size());
  return ruling{service, findings, before, now}.run();
}

}  // namespace sluice::decision
