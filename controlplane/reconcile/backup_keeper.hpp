// SPDX-License-Identifier: Apache-2.0
// backup_keeper: backups of the state file that is open here: on demand, and by the
// schedule of node.yaml. Copies that nobody waits for are made by a thread of its own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "controlplane/backup/create.hpp"
#include "controlplane/reconcile/state_keeper.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

enum class copy_state : std::uint8_t { none, done, queued };

struct backup_request {
  backup::backup_kind kind{backup::backup_kind::full};
  std::string to;
  std::string copy_to;  // empty: no copy
  copy_mode copy{copy_mode::sync};
};

struct backup_answer {
  backup::created backup;
  copy_state copy{copy_state::none};
};

struct backup_schedule_state {
  std::int64_t last_ms{0};  // of the newest backup that the schedule made or found; 0: none
  std::int64_t next_ms{0};  // 0: none is scheduled
  std::string last_error;   // empty: the last one went well
};

class backup_keeper {
 public:
  backup_keeper(std::shared_ptr<state_keeper> keeper, const node_config& node);
  // Waits for a backup that is being written; copies that are queued are made by the next run.
  ~backup_keeper();
  backup_keeper(const backup_keeper&) = delete;
  backup_keeper& operator=(const backup_keeper&) = delete;

  // create() makes one backup. With copy_mode::sync it is in both places, or an error says
  // in which it is not. Any thread; waits for the disk.
  [[nodiscard]] backup::result<backup_answer> create(const backup_request& request);
  [[nodiscard]] backup_schedule_state schedule() const;
  // problems() are for the status: what is overdue or could not be copied. Any thread.
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  using clock = std::chrono::system_clock;

  void run();
  void run_schedule();
  void run_copies();
  [[nodiscard]] backup::result<void> make_scheduled();
  [[nodiscard]] clock::time_point first_due() const;

  std::shared_ptr<state_keeper> keeper_;
  const node_config& node_;

  std::mutex create_mutex_;  // one backup at a time
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  backup_schedule_state schedule_;  // guarded by mutex_, as all below
  std::map<std::pair<std::string, std::string>, std::string> copies_;  // waiting; last error
  clock::time_point next_copy_{};
  bool stop_{false};
  std::thread thread_;
};

}  // namespace sluice::reconcile
