// SPDX-License-Identifier: Apache-2.0
// The schedule: who is probed when. Results become states in judge.hpp.
#include "controlplane/health/health_checker.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>

#include "controlplane/health/judge.hpp"
#include "controlplane/health/ping_socket.hpp"
#include "controlplane/health/probe.hpp"
#include "controlplane/health/tls_conversation.hpp"

namespace sluice::health {

namespace {

using clock = std::chrono::steady_clock;
using time_point = clock::time_point;
using std::chrono::milliseconds;

constexpr milliseconds first_probe_within{200};
// How long nothing is started after a lack of descriptors or memory: long enough not to
// spin, short beside any interval.
constexpr milliseconds shortage_pause{50};

milliseconds at_least_one(milliseconds d) noexcept {
  return std::max(d, milliseconds{1});
}

struct entry {
  entry(probe_tools& tools, target t, std::uint64_t h)
      : what{std::move(t)}, hash{h}, check{tools} {}

  const target what;
  const std::uint64_t hash;
  probe check;
  judge state;
  bool waiting{false};  // in the queue for a descriptor
  bool removed{false};
  bool spread{false};             // the move to its own place in the interval was made
  event_loop::timer_id timer{0};  // of the next start, or of the running probe's timeout
  time_point due{};               // when the current probe should have started
  time_point started{};
  std::string last_result;
  std::string told;  // with the last verdict
  std::optional<std::uint32_t> weight;
  std::chrono::microseconds latency{};
  std::uint64_t checks{0};
  std::uint64_t failed{0};
  std::chrono::system_clock::time_point last_change{};
};

// related() tells whether the state of one way of probing says something about another: not
// whether a backend has one VIP about whether it has another.
bool related(const target& a, const target& b) noexcept {
  return !a.path || !b.path || a.path->vip == b.path->vip;
}

// Targets of one backend port: what a changed check takes its state over from.
struct endpoint {
  ip_address address;
  std::uint16_t port;
  bool operator==(const endpoint&) const = default;
};
struct endpoint_hash {
  std::size_t operator()(const endpoint& e) const noexcept {
    return (e.address.low() ^ (e.address.high() * 31) ^ e.port) * 0x9e3779b97f4a7c15;
  }
};

}  // namespace

class health_checker::impl {
 public:
  impl(event_loop& loop, verdict_callback on_verdict, checker_options options)
      : loop_{loop}, on_verdict_{std::move(on_verdict)}, options_{std::move(options)} {
    const std::size_t limit = raise_file_limit();
    if (options_.max_in_flight == 0) options_.max_in_flight = limit - limit / 4;
    sockets_.most = std::max<std::size_t>(options_.max_in_flight, 1);
    programs_.most = std::max<std::size_t>(options_.max_programs, 1);
  }

  ~impl() {
    for (auto& [what, e] : entries_) retire(*e);
    for (const lane* l : {&sockets_, &programs_}) loop_.cancel(l->resume_timer);
  }

  void set_targets(const std::vector<wanted_target>& wanted);
  bool probe_now(const target& t);

  [[nodiscard]] health_state state_of(const target& t) const {
    const auto it = entries_.find(t);
    return it == entries_.end() ? health_state::unknown : it->second->state.state();
  }
  [[nodiscard]] std::optional<std::uint32_t> weight_of(const target& t) const {
    const auto it = entries_.find(t);
    return it == entries_.end() ? std::nullopt : it->second->weight;
  }
  [[nodiscard]] std::vector<target_status> snapshot() const;
  [[nodiscard]] checker_counters counters() const {
    checker_counters c = counters_;
    for (const lane* l : {&sockets_, &programs_}) {
      c.in_flight += l->in_flight;
      c.waiting += l->waiting.size();
    }
    return c;
  }

 private:
  using entry_ptr = std::shared_ptr<entry>;

  // lane: who waits for whom. Programs are few at a time, and nobody else waits for one.
  struct lane {
    std::size_t most{1};
    std::size_t in_flight{0};
    std::deque<entry_ptr> waiting{};
    event_loop::timer_id resume_timer{0};  // set while paused after a shortage
  };
  [[nodiscard]] lane& lane_of(const entry& e) noexcept {
    return e.what.check.kind == model::health_kind::exec ? programs_ : sockets_;
  }

  void schedule(entry& e, time_point at);
  void due(entry& e);
  void pump();
  void start(const entry_ptr& e);
  void finish(entry& e, probe_result result);
  void postpone(entry& e, const std::string& why);
  void retire(entry& e) noexcept;
  [[nodiscard]] time_point next_start(entry& e);

  event_loop& loop_;
  verdict_callback on_verdict_;
  checker_options options_;
  tls_contexts tls_;
  ping_socket ping4_{loop_, true};
  ping_socket ping6_{loop_, false};
  probe_tools tools_{loop_, options_.make_socket, tls_, ping4_, ping6_, options_.programs_in};
  std::unordered_map<target, entry_ptr, target_hash> entries_;
  lane sockets_;
  lane programs_;
  bool pumping_{false};
  checker_counters counters_;
  std::minstd_rand random_{std::random_device{}()};
};

void health_checker::impl::set_targets(const std::vector<wanted_target>& wanted) {
  std::unordered_map<target, entry_ptr, target_hash> next;
  next.reserve(wanted.size());
  std::vector<std::pair<entry*, health_state>> added;
  for (const wanted_target& w : wanted) {
    if (w.target.check.kind == model::health_kind::none || next.contains(w.target)) continue;
    if (const auto it = entries_.find(w.target); it != entries_.end()) {
      next.insert(entries_.extract(it));
      continue;
    }
    auto e = std::make_shared<entry>(tools_, w.target, target_hash{}(w.target));
    added.emplace_back(e.get(), w.initial);
    next.emplace(w.target, std::move(e));
  }
  // What is left in entries_ goes. A new target at the same place takes over its state;
  // if several kinds of check stood there, that of the same kind.
  std::unordered_multimap<endpoint, const entry*, endpoint_hash> leaving;
  for (const auto& [what, e] : entries_)
    leaving.emplace(endpoint{what.address, what.port}, e.get());
  const time_point now = loop_.now();
  for (auto& [e, initial] : added) {
    const entry* before = nullptr;
    const auto [from, to] = leaving.equal_range({e->what.address, e->what.port});
    for (auto it = from; it != to; ++it)
      if (related(it->second->what, e->what) &&
          (before == nullptr || it->second->what.check.kind == e->what.check.kind))
        before = it->second;
    if (before != nullptr && before->state.state() != health_state::unknown) {
      e->state = judge{before->state.state()};
      e->last_result = before->last_result;
      e->weight = before->weight;
      e->last_change = before->last_change;
    } else {
      e->state = judge{initial};
    }
    const milliseconds window = std::min(at_least_one(e->what.check.interval), first_probe_within);
    schedule(*e, now + milliseconds{e->hash % static_cast<std::uint64_t>(window.count())});
  }
  for (auto& [what, e] : entries_) retire(*e);
  entries_ = std::move(next);
  pump();
}

bool health_checker::impl::probe_now(const target& t) {
  const auto it = entries_.find(t);
  if (it == entries_.end()) return false;
  entry& e = *it->second;
  if (e.check.running() || e.waiting) return true;
  loop_.cancel(e.timer);
  e.due = loop_.now();
  due(e);
  return true;
}

void health_checker::impl::schedule(entry& e, time_point at) {
  e.due = at;
  e.timer = loop_.call_at(at, [this, p = &e] { due(*p); });
}

// due() queues the entry; pump() starts it at once unless others have to wait too.
void health_checker::impl::due(entry& e) {
  e.timer = 0;
  e.waiting = true;
  lane& l = lane_of(e);
  l.waiting.push_back(entries_.find(e.what)->second);
  if (l.resume_timer != 0 || l.in_flight >= l.most) ++counters_.deferred;
  pump();
}

void health_checker::impl::pump() {
  // Results that are known at once come back here through finish(): a loop, not a recursion.
  if (pumping_) return;
  pumping_ = true;
  struct reset {
    bool& flag;
    ~reset() { flag = false; }
  } const guard{pumping_};
  for (lane* const l : {&sockets_, &programs_})
    while (!l->waiting.empty() && l->resume_timer == 0 && l->in_flight < l->most) {
      const entry_ptr e = std::move(l->waiting.front());
      l->waiting.pop_front();
      if (!e->removed) start(e);
    }
}

void health_checker::impl::start(const entry_ptr& e) {
  e->waiting = false;
  e->started = loop_.now();
  ++lane_of(*e).in_flight;
  auto result = e->check.start(e->what, [this, p = e.get()](probe_result r) {
    loop_.cancel(p->timer);
    finish(*p, std::move(r));
  });
  if (!result || result->outcome != probe_outcome::shortage) ++counters_.started;
  if (result) {
    finish(*e, std::move(*result));
    return;
  }
  e->timer = loop_.call_at(e->started + at_least_one(e->what.check.timeout),
                           [this, p = e.get()] { finish(*p, p->check.timed_out()); });
}

time_point health_checker::impl::next_start(entry& e) {
  const milliseconds interval = at_least_one(e.what.check.interval);
  milliseconds wait = interval;
  if (e.state.in_doubt()) {
    const milliseconds asked = e.what.check.fast_interval;
    wait = std::min(interval, at_least_one(asked.count() != 0 ? asked : options_.fast_interval));
  } else if (!e.spread) {
    // Once, and only towards earlier: the promise on detection holds for the first rounds too.
    e.spread = true;
    wait = milliseconds{1 + (e.hash >> 20) % static_cast<std::uint64_t>(interval.count())};
  }
  // Only towards earlier, for the same promise. Not the same in every round and process.
  if (e.what.check.jitter != 0)
    wait -= milliseconds{wait.count() * static_cast<std::int64_t>(random_() % 1024) *
                         e.what.check.jitter / (1024 * 100)};
  wait = at_least_one(wait);
  // Counted from when it should have started: lateness must neither stretch the interval nor
  // bunch for ever those that were late together. But not two in quick succession for it.
  return std::max({e.due + wait, e.started + wait / 2, loop_.now()});
}

// postpone() puts the entry back in front of the queue and stops starting for a while.
void health_checker::impl::postpone(entry& e, const std::string& why) {
  ++counters_.deferred;
  e.last_result = "not probed: ";
  e.last_result += why;
  e.waiting = true;
  lane& l = lane_of(e);
  l.waiting.push_front(entries_.find(e.what)->second);
  if (l.resume_timer != 0) return;
  l.resume_timer = loop_.call_after(shortage_pause, [this, &l] {
    l.resume_timer = 0;
    pump();
  });
}

void health_checker::impl::finish(entry& e, probe_result result) {
  --lane_of(e).in_flight;
  if (result.outcome == probe_outcome::shortage) {
    postpone(e, result.text);
    return;
  }
  const time_point now = loop_.now();
  const bool ok = result.outcome == probe_outcome::ok;
  ++e.checks;
  ok ? ++counters_.succeeded : ++counters_.failed;
  if (ok)
    e.latency = std::chrono::duration_cast<std::chrono::microseconds>(now - e.started);
  else
    ++e.failed;
  const health_state before = e.state.state();
  bool tell = e.state.record(ok, e.what.check.rise, e.what.check.fall);
  const auto wall = std::chrono::system_clock::now();
  if (e.state.state() != before) e.last_change = wall;
  e.last_result = std::move(result.text);
  // A failure that is not believed yet changes nothing; one that is, or a recovery that is not
  // believed yet, has no weight to report.
  const bool up = e.state.state() == health_state::up;
  if (!up) result.weight.reset();
  if ((ok || !up) && e.weight != result.weight) {
    e.weight = result.weight;
    tell = tell || up;
  }
  // Whoever looks at what is down wants to know why it is now.
  if (!ok && e.state.state() == health_state::down && e.last_result != e.told) tell = true;
  schedule(e, next_start(e));
  if (tell && on_verdict_) {
    e.told = e.last_result;
    // Copies: the callback may replace the targets and with them this entry.
    const target what = e.what;
    on_verdict_(what, verdict{ok, e.weight, e.last_result, wall, now});
  }
  pump();
}

void health_checker::impl::retire(entry& e) noexcept {
  loop_.cancel(e.timer);
  if (e.check.running()) {
    e.check.stop();
    --lane_of(e).in_flight;
  }
  e.removed = true;
}

std::vector<target_status> health_checker::impl::snapshot() const {
  std::vector<target_status> all;
  all.reserve(entries_.size());
  for (const auto& [what, e] : entries_) {
    target_status& s = all.emplace_back();
    s.target = what;
    s.state = e->state.state();
    s.confirmed = e->state.confirmed();
    s.last_result = e->last_result;
    s.weight = e->weight;
    s.last_ok = e->state.last_ok();
    s.consecutive = e->state.consecutive();
    s.latency = e->latency;
    s.checks = e->checks;
    s.failed = e->failed;
    s.last_change = e->last_change;
  }
  return all;
}

health_checker::health_checker(event_loop& loop, verdict_callback on_verdict,
                               checker_options options)
    : impl_{std::make_unique<impl>(loop, std::move(on_verdict), std::move(options))} {}
health_checker::~health_checker() = default;

void health_checker::set_targets(const std::vector<wanted_target>& wanted) {
  impl_->set_targets(wanted);
}
bool health_checker::probe_now(const target& t) {
  return impl_->probe_now(t);
}
health_state health_checker::state_of(const target& t) const {
  return impl_->state_of(t);
}
std::optional<std::uint32_t> health_checker::weight_of(const target& t) const {
  return impl_->weight_of(t);
}
std::vector<target_status> health_checker::snapshot() const {
  return impl_->snapshot();
}
checker_counters health_checker::counters() const {
  return impl_->counters();
}

}  // namespace sluice::health
