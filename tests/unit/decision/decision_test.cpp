// SPDX-License-Identifier: Apache-2.0
// The rules of the decision one by one, on a clock of the test's own; then what has to hold
// for any service and any history.
#include "controlplane/decision/decision.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "controlplane/decision/full.hpp"
#include "controlplane/decision/suspicion.hpp"

namespace sluice::decision {
namespace {

using namespace std::chrono_literals;
using abi::shown_health;
using std::chrono::milliseconds;

constexpr finding up{shown_health::up, true};
constexpr finding down{shown_health::down, true};
constexpr finding unknown{shown_health::unknown, true};

// play: one service through time.
struct play {
  model::service service;
  memory known;
  time_point now{1h};
  verdict last;

  play() { service.name = "x"; }
  explicit play(std::initializer_list<std::pair<unsigned, unsigned>> weight_and_tier) {
    service.name = "x";
    std::uint8_t n = 0;
    for (const auto& [weight, tier] : weight_and_tier) {
      model::backend b;
      b.address = ip_address::v4({10, 0, 0, ++n});
      b.weight = weight;
      b.tier = static_cast<std::uint8_t>(tier);
      service.backends.push_back(b);
    }
  }
  // after() returns the weights once `d` has passed.
  std::vector<std::uint32_t> after(milliseconds d, const std::vector<finding>& findings) {
    now += d;
    last = decide(service, findings, known, now);
    known = last.next;
    std::vector<std::uint32_t> weights;
    for (const auto& b : last.backends) weights.push_back(b.weight);
    return weights;
  }
};
using weights = std::vector<std::uint32_t>;

TEST(decision, the_next_tier_takes_over_at_once_and_gives_back_after_the_hold_down) {
  play p{{100, 0}, {100, 0}, {50, 1}};
  p.service.failover.failback = 30s;
  EXPECT_EQ(p.after(0ms, {up, up, up}), (weights{100, 100, 0}));
  EXPECT_EQ(p.last.backends[2].why, standing::standby);
  EXPECT_EQ(p.after(1s, {down, up, up}), (weights{0, 100, 0}));
  EXPECT_EQ(p.after(1s, {down, down, up}), (weights{0, 0, 50}));
  EXPECT_EQ(p.last.tier, 1);
  EXPECT_FALSE(p.last.again);
  EXPECT_EQ(p.after(1s, {up, down, up}), (weights{0, 0, 50}));
  EXPECT_EQ(p.last.again, p.now + 30s);
  EXPECT_EQ(p.last.backends[0].why, standing::standby);
  // Another one down and up again in between: it counts anew.
  EXPECT_EQ(p.after(20s, {down, down, up}), (weights{0, 0, 50}));
  EXPECT_FALSE(p.last.again);
  EXPECT_EQ(p.after(1s, {up, up, up}), (weights{0, 0, 50}));
  EXPECT_EQ(p.after(29'999ms, {up, up, up}), (weights{0, 0, 50}));
  EXPECT_EQ(p.after(1ms, {up, up, up}), (weights{100, 100, 0}));
  EXPECT_FALSE(p.last.again);
}

TEST(decision, a_hold_down_ends_when_the_backup_cannot_serve) {
  play p{{100, 0}, {50, 1}};
  p.service.failover.failback = 30s;
  p.after(0ms, {up, up});
  EXPECT_EQ(p.after(1s, {down, up}), (weights{0, 50}));
  EXPECT_EQ(p.after(1s, {up, up}), (weights{0, 50}));
  EXPECT_EQ(p.after(1s, {up, down}), (weights{100, 0}));
}

TEST(decision, nothing_is_held_down_when_probes_of_the_backup_answer_first) {
  play p{{100, 0}, {50, 1}};
  p.service.failover.failback = 30s;
  EXPECT_EQ(p.after(0ms, {unknown, unknown}), (weights{100, 0}));
  EXPECT_TRUE(p.last.panic);
  EXPECT_EQ(p.after(10ms, {unknown, up}), (weights{0, 50}));
  EXPECT_EQ(p.after(10ms, {up, up}), (weights{100, 0}));
}

TEST(decision, a_tier_below_its_threshold_is_left) {
  play p{{100, 0}, {100, 0}, {100, 0}, {50, 1}};
  p.service.failover.tier_threshold = 60;
  EXPECT_EQ(p.after(0ms, {up, up, down, up}), (weights{100, 100, 0, 0}));
  EXPECT_EQ(p.after(1s, {up, down, down, up}), (weights{0, 0, 0, 50}));
  // No tier reaches it: the one that comes closest.
  EXPECT_EQ(p.after(1s, {up, down, down, down}), (weights{100, 0, 0, 0}));
}

TEST(decision, below_the_panic_threshold_health_is_ignored) {
  play p{{100, 0}, {100, 0}, {100, 0}, {100, 0}};
  p.service.failover.panic_threshold = 50;
  EXPECT_EQ(p.after(0ms, {up, up, down, down}), (weights{100, 100, 0, 0}));
  EXPECT_FALSE(p.last.panic);
  EXPECT_EQ(p.after(1s, {up, down, down, down}), (weights{100, 100, 100, 100}));
  EXPECT_TRUE(p.last.panic);
  EXPECT_EQ(p.last.backends[0].why, standing::panic);
  EXPECT_TRUE(p.last.backends[3].keeps);
  EXPECT_EQ(p.after(1s, {up, up, down, down}), (weights{100, 100, 0, 0}));
  EXPECT_FALSE(p.last.backends[3].keeps);
}

TEST(decision, a_backup_tier_comes_before_panic) {
  play p{{100, 0}, {100, 0}, {100, 0}, {50, 9}};
  p.service.failover.panic_threshold = 50;
  EXPECT_EQ(p.after(0ms, {up, down, down, up}), (weights{0, 0, 0, 50}));
  EXPECT_EQ(p.after(1s, {up, down, down, down}), (weights{100, 100, 100, 0}));
}

TEST(decision, slow_start_is_for_what_was_down) {
  play p{{100, 0}, {100, 0}};
  p.service.slow_start = {10s, 4};
  EXPECT_EQ(p.after(0ms, {up, unknown}), (weights{100, 0}));
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 100}));  // new is not back
  EXPECT_EQ(p.after(1s, {up, down}), (weights{100, 0}));
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 20}));
  EXPECT_EQ(p.last.backends[1].why, standing::slow_start);
  EXPECT_EQ(p.last.backends[1].until, p.now + 10s);
  EXPECT_EQ(p.last.again, p.now + 2500ms);
  EXPECT_EQ(p.after(2499ms, {up, up}), (weights{100, 20}));
  EXPECT_EQ(p.after(1ms, {up, up}), (weights{100, 40}));
  EXPECT_EQ(p.after(2500ms, {up, up}), (weights{100, 60}));
  EXPECT_EQ(p.after(1s, {up, down}), (weights{100, 0}));
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 20}));  // from the beginning
  EXPECT_EQ(p.after(9'999ms, {up, up}), (weights{100, 80}));
  EXPECT_EQ(p.after(1ms, {up, up}), (weights{100, 100}));
  EXPECT_FALSE(p.last.again);
}

TEST(decision, slow_start_begins_with_the_traffic) {
  play p{{100, 0}, {50, 1}};
  p.service.slow_start = {10s, 4};
  p.service.failover.failback = 30s;
  p.after(0ms, {up, up});
  p.after(1s, {down, up});
  p.after(1s, {up, up});
  EXPECT_EQ(p.after(30s, {up, up}), (weights{20, 0}));
}

TEST(decision, drained_until_the_deadline) {
  play p{{100, 0}, {100, 0}};
  p.service.drain_deadline = 60s;
  p.after(0ms, {up, up});
  p.service.backends[1].admin = model::admin_state::drain;
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 0}));
  EXPECT_TRUE(p.last.backends[1].keeps);
  EXPECT_EQ(p.last.backends[1].why, standing::draining);
  EXPECT_EQ(p.last.again, p.now + 60s);
  p.after(59'999ms, {up, up});
  EXPECT_TRUE(p.last.backends[1].keeps);
  p.after(1ms, {up, up});
  EXPECT_FALSE(p.last.backends[1].keeps);
  EXPECT_EQ(p.last.backends[1].why, standing::drained);
  p.service.backends[1].admin = model::admin_state::enabled;
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 100}));
  p.service.backends[1].admin = model::admin_state::drain;
  p.after(1s, {up, up});
  EXPECT_TRUE(p.last.backends[1].keeps);  // counts anew
}

TEST(decision, a_flapping_backend_is_held_out) {
  play p{{100, 0}, {100, 0}};
  p.service.flap_damping = {3, 60s, 120s};
  p.after(0ms, {up, up});
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(p.after(10s, {up, down}), (weights{100, 0}));
    EXPECT_EQ(p.after(10s, {up, up}), (weights{100, 100}));
  }
  p.after(10s, {up, down});
  const time_point fell = p.now;
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 0}));
  EXPECT_EQ(p.last.backends[1].why, standing::flapping);
  EXPECT_TRUE(p.last.backends[1].keeps);
  EXPECT_EQ(p.last.again, fell + 120s);
  // It is better than one that is down.
  EXPECT_EQ(p.after(1s, {down, up}), (weights{0, 100}));
  EXPECT_FALSE(p.last.panic);
  EXPECT_EQ(p.after(1s, {up, up}), (weights{100, 0}));
  EXPECT_EQ(p.after(116'999ms, {up, up}), (weights{100, 0}));
  EXPECT_EQ(p.after(1ms, {up, up}), (weights{100, 100}));
}

TEST(decision, falls_far_apart_are_no_flapping) {
  play p{{100, 0}, {100, 0}};
  p.service.flap_damping = {3, 60s, 120s};
  p.after(0ms, {up, up});
  for (int i = 0; i < 10; ++i) {
    p.after(20s, {up, down});
    EXPECT_EQ(p.after(20s, {up, up}), (weights{100, 100}));
  }
}

TEST(decision, what_is_forced_is_so) {
  play p{{100, 0}, {100, 0}, {50, 1}};
  p.service.slow_start = {10s, 4};
  p.service.flap_damping = {2, 60s, 60s};
  p.service.backends[0].admin = model::admin_state::down;
  EXPECT_EQ(p.after(0ms, {up, up, up}), (weights{0, 100, 0}));
  EXPECT_EQ(p.last.backends[0].why, standing::forced_down);
  EXPECT_FALSE(p.last.backends[0].keeps);
  p.service.backends[1].admin = model::admin_state::up;
  EXPECT_EQ(p.after(1s, {up, down, up}), (weights{0, 100, 0}));
  EXPECT_EQ(p.last.backends[1].why, standing::in_use);
  EXPECT_FALSE(p.last.panic);
  // Forced down, it is not even tried in panic.
  p.service.backends[1].admin = model::admin_state::down;
  EXPECT_EQ(p.after(1s, {up, up, down}), (weights{0, 0, 50}));
  EXPECT_TRUE(p.last.panic);
  // An operator's doing is no flapping, but it comes back slowly.
  for (int i = 0; i < 3; ++i) {
    p.service.backends[0].admin = model::admin_state::enabled;
    EXPECT_EQ(p.after(1s, {up, up, up}), (weights{20, 0, 0}));
    p.service.backends[0].admin = model::admin_state::down;
    p.after(1s, {up, up, up});
  }
}

TEST(decision, memory_follows_the_address) {
  play p{{100, 0}, {100, 0}};
  p.service.slow_start = {10s, 4};
  p.after(0ms, {up, up});
  p.after(1s, {up, down});
  p.service.backends.erase(p.service.backends.begin());
  EXPECT_EQ(p.after(1s, {up}), (weights{20}));
}

finding asks(double part) {
  finding f = up;
  f.asked = part;
  return f;
}

TEST(decision, the_sorry_server_serves_when_nobody_else_can) {
  play p{{100, 0}, {100, 1}, {7, 0}};
  p.service.backends[2].sorry = true;
  EXPECT_EQ(p.after(0ms, {up, up, unknown}), (weights{100, 0, 0}));
  EXPECT_EQ(p.last.backends[2].why, standing::standby);
  EXPECT_EQ(p.after(1s, {down, up, unknown}), (weights{0, 100, 0}));
  EXPECT_EQ(p.after(1s, {down, down, down}), (weights{0, 0, 7}));  // it is not checked
  EXPECT_EQ(p.last.backends[2].why, standing::sorry);
  EXPECT_FALSE(p.last.panic);
  EXPECT_FALSE(p.last.tier);
  EXPECT_TRUE(p.last.announce);
  // Without a way to it, the others are tried all the same.
  EXPECT_EQ(p.after(1s, {down, down, {shown_health::up, false}}), (weights{100, 0, 0}));
  EXPECT_TRUE(p.last.panic);
  EXPECT_EQ(p.after(1s, {up, down, unknown}), (weights{100, 0, 0}));
  // As long as some can serve, panic is for those, sorry for nobody.
  p.service.failover.panic_threshold = 60;
  p.service.backends[1].tier = 0;
  EXPECT_EQ(p.after(1s, {up, down, unknown}), (weights{100, 100, 0}));
  EXPECT_TRUE(p.last.panic);
}

TEST(decision, one_that_is_full_gets_no_new_connections) {
  play p{{100, 0}, {100, 0}, {50, 1}};
  finding full = up;
  full.full = true;
  EXPECT_EQ(p.after(0ms, {full, up, up}), (weights{0, 100, 0}));
  EXPECT_EQ(p.last.backends[0].why, standing::full);
  EXPECT_TRUE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(1s, {full, full, up}), (weights{0, 0, 50}));
  EXPECT_EQ(p.after(1s, {full, full, full}), (weights{0, 0, 0}));  // not even in panic
  EXPECT_FALSE(p.last.panic);
  EXPECT_TRUE(p.last.announce);  // they are healthy
  EXPECT_EQ(p.after(1s, {full, down, down}), (weights{0, 100, 0}));
  p.service.backends[2].sorry = true;
  EXPECT_EQ(p.after(1s, {full, full, up}), (weights{0, 0, 50}));
  EXPECT_TRUE(p.last.sorry);
}

TEST(decision, what_a_backend_says_of_itself) {
  play p{{100, 0}, {100, 0}};
  finding unfit = up;
  unfit.unfit = true;
  finding drain = up;
  drain.wish = wish::drain;
  finding maint = up;
  maint.wish = wish::maint;
  EXPECT_EQ(p.after(0ms, {unfit, up}), (weights{0, 100}));
  EXPECT_EQ(p.last.backends[0].why, standing::down);
  EXPECT_FALSE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(1s, {drain, up}), (weights{0, 100}));
  EXPECT_EQ(p.last.backends[0].why, standing::draining);
  EXPECT_TRUE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(1s, {maint, up}), (weights{0, 100}));
  EXPECT_EQ(p.last.backends[0].why, standing::maintenance);
  EXPECT_FALSE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(1s, {maint, drain}), (weights{0, 0}));  // as asked for, not even in panic
  // An operator's word goes before it.
  p.service.backends[0].admin = model::admin_state::up;
  for (const finding& f : {unfit, drain, maint})
    EXPECT_EQ(p.after(1s, {f, up}), (weights{100, 100}));
}

TEST(decision, weights_that_are_asked_for) {
  play p{{100, 0}, {100, 0}};
  p.service.weights = {0ms, 5, 25, 2s};
  EXPECT_EQ(p.after(0ms, {asks(1), up}), (weights{100, 100}));
  EXPECT_EQ(p.after(1s, {asks(0.4), up}), (weights{75, 100}));
  EXPECT_EQ(p.last.again, p.now + 2s);
  EXPECT_EQ(p.after(2s, {asks(0.4), up}), (weights{50, 100}));
  EXPECT_EQ(p.after(2s, {asks(0.4), up}), (weights{43, 100}));
  EXPECT_FALSE(p.last.again);
  EXPECT_EQ(p.after(9s, {asks(0.44), up}), (weights{43, 100}));
  EXPECT_EQ(p.after(9s, {asks(0), up}), (weights{0, 100}));  // at once
  EXPECT_EQ(p.last.backends[0].why, standing::off);
  EXPECT_TRUE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(9s, {up, up}), (weights{100, 100}));  // nothing is asked for any more
}

TEST(decision, announced_while_there_is_a_quorum) {
  play p{{100, 0}, {100, 0}, {100, 0}, {100, 0}, {10, 1}};
  p.service.quorum = {50, 25, 10s};
  p.after(0ms, {unknown, unknown, unknown, unknown, down});
  EXPECT_FALSE(p.last.announce);
  p.after(1s, {up, up, unknown, unknown, down});
  EXPECT_TRUE(p.last.announce);  // nothing was withdrawn
  p.after(1s, {up, down, down, down, down});
  EXPECT_FALSE(p.last.announce);
  p.after(1s, {up, up, down, down, down});
  EXPECT_FALSE(p.last.announce);  // 75% it takes now
  p.after(1s, {up, up, up, down, down});
  EXPECT_FALSE(p.last.announce);
  EXPECT_EQ(p.last.again, p.now + 10s);
  p.after(5s, {up, up, down, down, down});
  p.after(5s, {up, up, up, down, down});
  EXPECT_EQ(p.last.again, p.now + 10s);
  p.after(9'999ms, {up, up, up, down, down});
  EXPECT_FALSE(p.last.announce);
  p.after(1ms, {up, up, up, down, down});
  EXPECT_TRUE(p.last.announce);
  p.after(1s, {down, down, down, down, up});
  EXPECT_TRUE(p.last.announce);  // the other tier has all of its weight
}

TEST(decision, connections_that_are_never_answered) {
  EXPECT_TRUE(never_answered(10, 12));  // SYNs, some of them repeated
  EXPECT_TRUE(never_answered(4, 4));
  EXPECT_FALSE(never_answered(3, 3));    // too few to say
  EXPECT_FALSE(never_answered(10, 30));  // SYN, ACK, request
  EXPECT_FALSE(never_answered(0, 0));
  EXPECT_FALSE(never_answered(4, 400));  // others go on

  EXPECT_TRUE(keeps_resetting(10, 10));
  EXPECT_TRUE(keeps_resetting(10, 5));
  EXPECT_TRUE(keeps_resetting(0, 4));  // a process that went, with its connections
  EXPECT_FALSE(keeps_resetting(3, 3));
  EXPECT_FALSE(keeps_resetting(100, 40));
  EXPECT_FALSE(keeps_resetting(0, 0));
}

TEST(decision, full_until_a_tenth_is_gone) {
  EXPECT_FALSE(is_full(true, 1000, 0));  // no bound
  EXPECT_FALSE(is_full(false, 99, 100));
  EXPECT_TRUE(is_full(false, 100, 100));
  EXPECT_TRUE(is_full(true, 91, 100));
  EXPECT_FALSE(is_full(true, 90, 100));
  EXPECT_TRUE(is_full(true, 1, 1));
  EXPECT_FALSE(is_full(true, 0, 1));
}

// What has to hold whatever happens.
struct history {
  std::mt19937 random;
  play p{};

  explicit history(unsigned seed) : random{seed} {
    const unsigned n = below(6) + 1;
    for (unsigned i = 0; i < n; ++i) {
      model::backend b;
      b.address = ip_address::v4({10, 0, 0, static_cast<std::uint8_t>(i + 1)});
      b.weight = below(5) == 0 ? 0 : below(200) + 1;
      b.tier = static_cast<std::uint8_t>(below(3));
      p.service.backends.push_back(b);
    }
    const auto percent = [&] { return static_cast<std::uint8_t>(below(2) * below(101)); };
    p.service.failover = {percent(), percent(), milliseconds{below(2) * below(5000)}};
    if (below(2) != 0)
      p.service.slow_start = {milliseconds{below(5000) + 100},
                              static_cast<std::uint8_t>(below(20) + 1)};
    if (below(2) != 0)
      p.service.flap_damping = {static_cast<std::uint8_t>(below(3) + 2),
                                milliseconds{below(9000) + 100}, milliseconds{below(9000) + 100}};
    if (below(2) != 0) p.service.drain_deadline = milliseconds{below(5000) + 100};
    if (below(3) == 0) p.service.backends[below(n)].sorry = true;
    const auto band = static_cast<std::uint8_t>(below(10));
    p.service.weights = {milliseconds{below(2) * below(5000)}, band,
                         static_cast<std::uint8_t>(band + 1 + below(50)),
                         milliseconds{below(3000)}};
    p.service.quorum = {percent(), percent(), milliseconds{below(2) * below(5000)}};
  }
  unsigned below(unsigned n) { return static_cast<unsigned>(random() % n); }
  std::vector<finding> findings() {
    std::vector<finding> out;
    for (std::size_t i = 0; i < p.service.backends.size(); ++i) {
      const unsigned what = below(10);
      out.push_back({what < 6   ? shown_health::up
                     : what < 9 ? shown_health::down
                                : shown_health::unknown,
                     below(10) != 0});
      if (below(3) == 0) out.back().asked = below(200) / 100.0;
      if (below(6) == 0) out.back().wish = static_cast<wish>(below(3));
      out.back().unfit = below(9) == 0;
      out.back().full = below(9) == 0;
    }
    return out;
  }
};

// seen() is a backend as rules 1 and 9 see it.
struct seen {
  bool may;  // be given new connections at all
  shown_health health;
  bool fine;  // can serve, held out or not

  seen(const model::backend& b, const finding& f, const backend_memory& m) {
    const bool forced_up = b.admin == model::admin_state::up;
    const bool said = b.admin == model::admin_state::enabled;
    may = b.weight != 0 && !(m.weight && m.weight->used == 0) &&
          (forced_up || (said && f.wish == wish::none));
    health = forced_up ? shown_health::up
             : b.admin == model::admin_state::down || f.unfit || (said && f.wish == wish::maint)
                 ? shown_health::down
             : b.sorry ? shown_health::unchecked
                       : f.health;
    fine = may && f.reachable && !f.full &&
           (health == shown_health::up || health == shown_health::unchecked);
  }
};

void check_sound(const model::service& s, const std::vector<finding>& findings, const verdict& v,
                 time_point now) {
  bool wanted = false;
  bool used = false;
  bool fine = false;
  for (std::size_t i = 0; i < s.backends.size(); ++i) {
    const model::backend& b = s.backends[i];
    const backend_decision& d = v.backends[i];
    const seen is{b, findings[i], v.next.backends[i]};
    wanted |= is.may && !b.sorry && !findings[i].full;
    fine |= is.fine && !b.sorry;
    used |= d.weight != 0;
    if (!findings[i].asked) {
      EXPECT_LE(d.weight, b.weight);
    }
    if (!is.may) {
      EXPECT_EQ(d.weight, 0u);
    }
    if (d.weight != 0) {
      EXPECT_TRUE(d.keeps);
      EXPECT_FALSE(findings[i].full);
      EXPECT_EQ(b.sorry, v.sorry);
      if (v.tier || v.sorry) {
        EXPECT_TRUE(is.fine);
      } else {
        EXPECT_TRUE(v.panic);
      }
      if (v.tier) {
        EXPECT_EQ(b.tier, *v.tier);
      }
    }
    if (!d.keeps) {
      EXPECT_TRUE(is.health == shown_health::down || d.why == standing::drained);
    }
    if (is.health == shown_health::down && d.weight == 0) {
      EXPECT_FALSE(d.keeps);
    }
    if (d.until) {
      EXPECT_GT(*d.until, now);
    }
  }
  // Somebody gets new connections if anybody may; a sorry server only when nobody can serve.
  EXPECT_EQ(used, wanted || v.sorry);
  EXPECT_FALSE(v.sorry && fine);
  EXPECT_EQ(v.panic, used && !v.tier && !v.sorry);
  if (v.again) {
    EXPECT_GT(*v.again, now);
  }
}

TEST(decision, properties) {
  for (unsigned seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    history h{seed};
    play& p = h.p;
    std::vector<finding> findings = h.findings();
    for (int step = 0; step < 60; ++step) {
      const memory before = p.known;
      p.after(milliseconds{h.below(1500)}, findings);
      const verdict v = p.last;
      check_sound(p.service, findings, v, p.now);
      // Nothing but the arguments counts, and a decision stands.
      EXPECT_EQ(decide(p.service, findings, before, p.now).backends, v.backends);
      const verdict once_more = decide(p.service, findings, v.next, p.now);
      EXPECT_EQ(once_more.backends, v.backends);
      EXPECT_EQ(once_more.next, v.next);
      EXPECT_EQ(once_more.again, v.again);
      // Until `again` time alone changes nothing.
      const auto span = v.again ? *v.again - p.now : std::chrono::nanoseconds{1h};
      for (int sample = 1; sample <= 4; ++sample) {
        const time_point then = p.now + (span - 1ns) * sample / 4;
        EXPECT_EQ(decide(p.service, findings, v.next, then).backends, v.backends) << sample;
      }
      if (h.below(2) != 0) findings = h.findings();
      if (h.below(8) == 0) {
        auto& b = p.service.backends[h.below(static_cast<unsigned>(p.service.backends.size()))];
        b.admin = static_cast<model::admin_state>(h.below(4));
      }
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(decision, a_reported_weight_takes_the_place_of_the_configured_one) {
  play p{{100, 0}, {100, 0}, {0, 0}, {50, 1}};
  const auto reports = [](std::uint32_t weight) { return finding{shown_health::up, true, weight}; };
  EXPECT_EQ(p.after(0ms, {reports(7), up, reports(9), up}), (weights{7, 100, 0, 0}));
  // None wanted: as if it had been configured so.
  EXPECT_EQ(p.after(1s, {reports(0), up, up, up}), (weights{0, 100, 0, 0}));
  EXPECT_EQ(p.last.backends[0].why, standing::off);
  EXPECT_TRUE(p.last.backends[0].keeps);
  EXPECT_EQ(p.after(1s, {reports(0), down, up, reports(5)}), (weights{0, 0, 0, 5}));
  EXPECT_EQ(p.after(1s, {up, up, up, up}), (weights{100, 100, 0, 0}));
}

TEST(decision, properties_of_time) {
  // A tier that was left gets its traffic back after failback at the earliest; a ramp never
  // falls while nothing else happens, and ends at the whole weight.
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    history h{seed};
    play& p = h.p;
    p.service.failover = {0, 0, 2s};
    p.service.flap_damping = {};
    std::vector<finding> findings = h.findings();
    std::optional<time_point> good_since;  // of the tiers that are better than the one in use
    for (int step = 0; step < 100; ++step) {
      const memory before = p.known;
      const auto old = p.last;
      p.after(milliseconds{h.below(900)}, findings);
      if (before.tier && p.last.tier && *p.last.tier < *before.tier && before.left &&
          *p.last.tier >= *before.left) {
        bool backup_serves = false;
        for (std::size_t i = 0; i < findings.size(); ++i)
          backup_serves |= p.service.backends[i].tier == *before.tier &&
                           !p.service.backends[i].sorry &&
                           seen{p.service.backends[i], findings[i], p.last.next.backends[i]}.fine;
        if (backup_serves) {
          ASSERT_TRUE(good_since);
          EXPECT_GE(p.now - *good_since, 2s);
        }
      }
      good_since = p.last.next.better ? std::optional{p.last.next.better_since} : std::nullopt;
      if (h.below(3) == 0) {
        findings = h.findings();
      } else if (!old.backends.empty() && old.tier == p.last.tier) {
        const verdict later = decide(p.service, findings, p.last.next, p.now + 10s);
        for (std::size_t i = 0; i < findings.size(); ++i)
          if (later.tier == p.last.tier && !findings[i].asked) {
            EXPECT_GE(later.backends[i].weight, p.last.backends[i].weight);
          }
      }
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace sluice::decision
