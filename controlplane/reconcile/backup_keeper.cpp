// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/backup_keeper.hpp"

#include <algorithm>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr auto retry_copy_after = 30s;
// So that a clock that is set is noticed, whatever way.
constexpr auto look_at_clock_every = 10s;

std::int64_t to_ms(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
}

backup::backup_kind kind_of(backup_method m) {
  switch (m) {
    case backup_method::full:
      break;
    case backup_method::incremental:
      return backup::backup_kind::incremental;
    case backup_method::differential:
      return backup::backup_kind::differential;
  }
  return backup::backup_kind::full;
}

backup::source source_of(state_keeper& keeper) {
  return {
      [&keeper] { return keeper.bounds(); },
      [&keeper](store::revision_number first, std::size_t n) { return keeper.records(first, n); },
      [&keeper] { return keeper.load_verdicts(); },
      [&keeper] { return keeper.load_side_tables(); }};
}

// since_full() counts the backups of the newest chain; 0: there is none.
std::size_t since_full(const backup::directory& d) {
  std::size_t n = 0;
  bool found = false;
  for (const auto& e : d.entries()) {
    found = found || e.about.kind == backup::backup_kind::full;
    n = e.about.kind == backup::backup_kind::full ? 1 : n + 1;
  }
  return found ? n : 0;
}

}  // namespace

backup_keeper::backup_keeper(std::shared_ptr<state_keeper> keeper, const node_config& node)
    : keeper_{std::move(keeper)}, node_{node} {
  const auto& wanted = node_.controlplane.backup;
  if (!wanted.to.empty()) schedule_.next_ms = to_ms(first_due());
  if (!wanted.to.empty() && !wanted.copy_to.empty()) copies_[{wanted.to, wanted.copy_to}];
  thread_ = std::thread{[this] { run(); }};
}

backup_keeper::~backup_keeper() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

backup::result<backup_answer> backup_keeper::create(const backup_request& r) {
  const std::lock_guard one_at_a_time{create_mutex_};
  auto made = backup::create(source_of(*keeper_), {r.kind, r.to, node_.name});
  if (!made) return tl::unexpected{made.error()};
  backup_answer answer{std::move(*made), copy_state::none};
  const auto& about = answer.backup.made.about;
  if (answer.backup.fresh)
    spdlog::info("backup {} in {}: revisions {} to {}, {} bytes", about.name(), r.to, about.first,
                 about.last, about.bytes);
  if (r.copy_to.empty()) return answer;
  if (r.copy == copy_mode::async) {
    {
      const std::lock_guard lock{mutex_};
      copies_[{r.to, r.copy_to}];
      next_copy_ = {};
    }
    wake_.notify_all();
    answer.copy = copy_state::queued;
    return answer;
  }
  if (auto copied = backup::copy_missing(r.to, r.copy_to); !copied)
    return tl::unexpected{"the backup is in " + r.to +
                          ", and could not be copied: " + copied.error()};
  answer.copy = copy_state::done;
  return answer;
}

backup_schedule_state backup_keeper::schedule() const {
  const std::lock_guard lock{mutex_};
  return schedule_;
}

std::vector<std::string> backup_keeper::problems() const {
  const std::lock_guard lock{mutex_};
  std::vector<std::string> out;
  if (!schedule_.last_error.empty())
    out.push_back("the scheduled backup failed: " + schedule_.last_error);
  for (const auto& [where, error] : copies_)
    if (!error.empty()) out.push_back("backups are not copied: " + error);
  return out;
}

backup_keeper::clock::time_point backup_keeper::first_due() const {
  const auto d = backup::directory::read(node_.controlplane.backup.to);
  if (!d || d->entries().empty()) return clock::now();
  const auto last = std::chrono::milliseconds{d->entries().back().about.created_ms};
  return std::min(clock::time_point{last} + node_.controlplane.backup.interval,
                  clock::now() + node_.controlplane.backup.interval);
}

backup::result<void> backup_keeper::make_scheduled() {
  const auto& wanted = node_.controlplane.backup;
  backup_request request{kind_of(wanted.kind), wanted.to, wanted.copy_to, wanted.copy};
  const auto d = backup::directory::read(wanted.to);
  const std::size_t chain = d ? since_full(*d) : 0;
  if (chain == 0 || chain >= wanted.full_every) request.kind = backup::backup_kind::full;
  auto done = create(request);
  if (!done && request.kind != backup::backup_kind::full) {
    // What it would build on is gone, or is not of this history.
    spdlog::warn("{}; a full backup is tried instead", done.error());
    request.kind = backup::backup_kind::full;
    done = create(request);
  }
  if (!done) return tl::unexpected{done.error()};
  for (const std::string& where : {wanted.to, wanted.copy_to}) {
    if (where.empty() || (where == wanted.copy_to && wanted.copy == copy_mode::async)) continue;
    if (auto removed = backup::remove_old(where, wanted.keep); !removed)
      return tl::unexpected{removed.error()};
  }
  return {};
}

void backup_keeper::run_schedule() {
  const auto done = make_scheduled();
  if (!done) spdlog::error("the scheduled backup failed: {}", done.error());
  const auto now = clock::now();
  const std::lock_guard lock{mutex_};
  schedule_.last_error = done ? std::string{} : done.error();
  if (done) schedule_.last_ms = to_ms(now);
  schedule_.next_ms = to_ms(now + node_.controlplane.backup.interval);
}

void backup_keeper::run_copies() {
  std::map<std::pair<std::string, std::string>, std::string> todo;
  {
    const std::lock_guard lock{mutex_};
    todo = copies_;
  }
  const auto& wanted = node_.controlplane.backup;
  for (const auto& [where, before] : todo) {
    auto copied = backup::copy_missing(where.first, where.second);
    if (copied && where.second == wanted.copy_to && where.first == wanted.to)
      copied = backup::remove_old(where.second, wanted.keep);
    if (!copied && copied.error() != before)
      spdlog::error("backups are not copied: {}", copied.error());
    const std::lock_guard lock{mutex_};
    if (copied)
      copies_.erase(where);
    else
      copies_[where] = copied.error();
  }
  const std::lock_guard lock{mutex_};
  next_copy_ = clock::now() + retry_copy_after;
}

void backup_keeper::run() {
  std::unique_lock lock{mutex_};
  while (!stop_) {
    const auto now = clock::now();
    const bool due = schedule_.next_ms != 0 && to_ms(now) >= schedule_.next_ms;
    const bool copy = !copies_.empty() && now >= next_copy_;
    if (due || copy) {
      lock.unlock();
      if (due) run_schedule();
      if (copy) run_copies();
      lock.lock();
      continue;
    }
    auto until = now + look_at_clock_every;
    if (schedule_.next_ms != 0)
      until = std::min(until, clock::time_point{std::chrono::milliseconds{schedule_.next_ms}});
    if (!copies_.empty()) until = std::min(until, next_copy_);
    wake_.wait_until(lock, until);
  }
}

}  // namespace sluice::reconcile
