// SPDX-License-Identifier: Apache-2.0
// Captures to a pcapng file, one at a time: the workers put copies into a ring, a thread of
// the housekeeping CPUs writes them. A capture ends when its count or time is reached, when
// it is stopped, or when nobody has asked about it for some seconds: then whoever wanted it
// is gone. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include <tl/expected.hpp>

#include "dataplane/worker/capture.hpp"

namespace sluice {

struct capture_request {
  std::string path;  // absolute
  capture_filter filter;
  std::uint64_t count{0};  // packets written, before and after rewriting; 0: no limit
  std::uint64_t seconds{0};
  std::uint32_t snap{65535};
};

struct capture_status {
  bool running{false};
  std::string path;
  std::uint64_t written{0};
  std::uint64_t missed{0};
  std::string error;  // why it ended, if that was not intended
};

class capture_writer {
 public:
  // in_use(c): some worker is putting packets into it.
  using in_use = std::function<bool(const capture*)>;

  explicit capture_writer(in_use used) : used_{std::move(used)} {}
  capture_writer(const capture_writer&) = delete;
  capture_writer& operator=(const capture_writer&) = delete;
  ~capture_writer() { stop(); }

  // wanted() is what the workers look at.
  [[nodiscard]] const std::atomic<capture*>& wanted() const noexcept { return wanted_; }

  // start() refuses while another capture runs, and files that cannot be made.
  tl::expected<void, std::string> start(const capture_request& request);
  // status() is of the last capture; it also keeps a running one alive.
  capture_status status();
  // stop() ends it, if one runs, and waits until the file is complete.
  capture_status stop();

 private:
  void run(int file, capture_request request);
  void finish();

  in_use used_;
  std::atomic<capture*> wanted_{nullptr};
  capture current_;
  std::mutex control_;  // start() and stop()
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{false};
  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> asked_ns_{0};
  std::mutex text_;  // of the two below
  std::string path_;
  std::string error_;
};

}  // namespace sluice
