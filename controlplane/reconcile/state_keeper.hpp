// SPDX-License-Identifier: Apache-2.0
// state_keeper: the state file for several threads. Revisions are committed by the
// caller's thread; health verdicts are collected and written by a thread of its own, so
// that no fsync ever stands between a verdict and the workers.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "controlplane/store/store.hpp"

namespace sluice::reconcile {

class state_keeper {
 public:
  explicit state_keeper(store::state_store file);
  // Writes the verdicts that are left.
  ~state_keeper();
  state_keeper(const state_keeper&) = delete;
  state_keeper& operator=(const state_keeper&) = delete;

  // Any thread; each waits for the disk. merged: the state with the backends that are
  // discovered; verdicts of others are forgotten.
  [[nodiscard]] store::result<std::optional<store::revision>> load_latest();
  [[nodiscard]] store::result<store::revision_number> commit(const model::desired_state& state,
                                                             std::string_view author,
                                                             std::string_view reason,
                                                             std::uint32_t changes,
                                                             const model::desired_state& merged);
  [[nodiscard]] store::result<std::vector<store::revision_info>> history(std::size_t n);
  // get() returns nothing when there is no such revision, or no longer.
  [[nodiscard]] store::result<std::optional<store::revision>> get(store::revision_number number);
  [[nodiscard]] store::result<store::history_bounds> bounds();
  [[nodiscard]] store::result<std::vector<store::revision_record>> records(
      store::revision_number first, std::size_t n);
  [[nodiscard]] store::result<std::vector<store::verdict>> load_verdicts();
  [[nodiscard]] store::result<store::state_store::side_tables> load_side_tables();

  [[nodiscard]] store::result<store::state_store::texts> load_discovered();
  [[nodiscard]] store::result<store::state_store::texts> load_reports();

  // remember() and remembered(): state_store's. Each waits for the disk.
  [[nodiscard]] store::result<void> remember(const char* name, std::string_view text);
  [[nodiscard]] std::string remembered(const char* name);

  // save_later() takes a verdict; it is on disk within about a second. Any thread, never
  // waits for the disk.
  void save_later(store::verdict v);
  // The same for what is known of a service's discovered backends; empty: nothing any more.
  void save_discovered_later(const std::string& service, std::string body);
  // The same for what its backends have said of themselves.
  void save_reports_later(const std::string& service, std::string body);
  // last_error() says why verdicts could not be written; empty: they were.
  [[nodiscard]] std::string last_error() const;

 private:
  void run();
  using key = std::pair<std::string, ip_address>;

  std::mutex file_mutex_;
  store::state_store file_;  // guarded by file_mutex_

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<key, store::verdict> waiting_;  // guarded by mutex_, as all below
  store::state_store::texts discovered_waiting_;
  store::state_store::texts reports_waiting_;
  std::string error_;
  bool stop_{false};
  std::thread thread_;
};

}  // namespace sluice::reconcile
