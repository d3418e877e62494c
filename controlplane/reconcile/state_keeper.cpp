// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/state_keeper.hpp"

#include <chrono>

namespace sluice::reconcile {
namespace {

// Verdicts of a second share one fsync; losing the last second of them costs a probe.
constexpr std::chrono::seconds collect_for{1};

}  // namespace

state_keeper::state_keeper(store::state_store file)
    : file_{std::move(file)}, thread_{[this] { run(); }} {}

state_keeper::~state_keeper() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

store::result<std::optional<store::revision>> state_keeper::load_latest() {
  const std::lock_guard lock{file_mutex_};
  return file_.load_latest();
}

store::result<store::revision_number> state_keeper::commit(const model::desired_state& state,
                                                           std::string_view author,
                                                           std::string_view reason,
                                                           std::uint32_t changes,
                                                           const model::desired_state& merged) {
  const std::lock_guard lock{file_mutex_};
  auto number = file_.commit(state, author, reason, changes);
  // The revision is durable; verdicts that nobody asks for are only untidy.
  if (number) (void)file_.forget_verdicts_except(merged);
  return number;
}

store::result<std::vector<store::revision_info>> state_keeper::history(std::size_t n) {
  const std::lock_guard lock{file_mutex_};
  return file_.history(n);
}

store::result<std::optional<store::revision>> state_keeper::get(store::revision_number number) {
  const std::lock_guard lock{file_mutex_};
  return file_.get(number);
}

store::result<store::history_bounds> state_keeper::bounds() {
  const std::lock_guard lock{file_mutex_};
  return file_.bounds();
}

store::result<std::vector<store::revision_record>> state_keeper::records(
    store::revision_number first, std::size_t n) {
  const std::lock_guard lock{file_mutex_};
  return file_.records(first, n);
}

store::result<std::vector<store::verdict>> state_keeper::load_verdicts() {
  const std::lock_guard lock{file_mutex_};
  return file_.load_verdicts();
}

store::result<store::state_store::side_tables> state_keeper::load_side_tables() {
  const std::lock_guard lock{file_mutex_};
  return file_.load_side_tables();
}

store::result<store::state_store::texts> state_keeper::load_discovered() {
  const std::lock_guard lock{file_mutex_};
  return file_.load_discovered();
}

store::result<void> state_keeper::remember(const char* name, std::string_view text) {
  const std::lock_guard lock{file_mutex_};
  return file_.remember(name, text);
}

std::string state_keeper::remembered(const char* name) {
  const std::lock_guard lock{file_mutex_};
  return file_.remembered(name);
}

store::result<store::state_store::texts> state_keeper::load_reports() {
  const std::lock_guard lock{file_mutex_};
  return file_.load_reports();
}

void state_keeper::save_reports_later(const std::string& service, std::string body) {
  {
    const std::lock_guard lock{mutex_};
    reports_waiting_.insert_or_assign(service, std::move(body));
  }
  wake_.notify_one();
}

void state_keeper::save_discovered_later(const std::string& service, std::string body) {
  {
    const std::lock_guard lock{mutex_};
    discovered_waiting_.insert_or_assign(service, std::move(body));
  }
  wake_.notify_one();
}

void state_keeper::save_later(store::verdict v) {
  {
    const std::lock_guard lock{mutex_};
    key k{v.service, v.backend};
    waiting_.insert_or_assign(std::move(k), std::move(v));
  }
  wake_.notify_one();
}

std::string state_keeper::last_error() const {
  const std::lock_guard lock{mutex_};
  return error_;
}

void state_keeper::run() {
  std::unique_lock lock{mutex_};
  for (;;) {
    wake_.wait(lock, [this] {
      return stop_ || !waiting_.empty() || !discovered_waiting_.empty() ||
             !reports_waiting_.empty();
    });
    if (!stop_) wake_.wait_for(lock, collect_for, [this] { return stop_; });
    std::vector<store::verdict> batch;
    batch.reserve(waiting_.size());
    for (auto& [k, v] : waiting_) batch.push_back(std::move(v));
    waiting_.clear();
    const auto discovered = std::exchange(discovered_waiting_, {});
    const auto reports = std::exchange(reports_waiting_, {});
    const bool last = stop_;
    if (!batch.empty() || !discovered.empty() || !reports.empty()) {
      lock.unlock();
      store::result<void> saved;
      {
        const std::lock_guard file{file_mutex_};
        saved = file_.save_verdicts(batch);
        if (saved && !discovered.empty()) saved = file_.save_discovered(discovered);
        if (saved && !reports.empty()) saved = file_.save_reports(reports);
      }
      lock.lock();
      error_ = saved ? std::string{} : saved.error();
    }
    if (last) return;
  }
}

}  // namespace sluice::reconcile
