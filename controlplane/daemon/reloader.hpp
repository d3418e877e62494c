// SPDX-License-Identifier: Apache-2.0
// reloader: reads node.yaml again when asked to, in a thread of its own, since a file may take
// its time. Takes over the log level and hands on the rest; what only a start takes over is said.
// A file that is wrong changes nothing.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"

namespace sluice::daemon {

class reloader {
 public:
  // take: takes over what it can of a file that can be read, or says what is wrong with it. Called
  // in the reloader's thread.
  using take = std::function<tl::expected<void, std::vector<config_error>>(const node_config&)>;

  // level: what the command line says; it holds whatever the file says. running outlives this.
  reloader(const node_config& running, std::optional<log_level> level, take take_over);
  // Waits for a file that is being read.
  ~reloader();
  reloader(const reloader&) = delete;
  reloader& operator=(const reloader&) = delete;

  // request() returns at once. Any thread.
  void request();

 private:
  void run();
  void reload();

  const node_config& running_;
  std::optional<log_level> level_;
  take take_over_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool wanted_{false};  // guarded by mutex_, as stop_
  bool stop_{false};
  std::thread thread_;
};

// set_log_level() is for the default logger of this process.
void set_log_level(log_level level);

}  // namespace sluice::daemon
