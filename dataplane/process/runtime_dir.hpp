// SPDX-License-Identifier: Apache-2.0
// The node's runtime directory and the lock in it: one data plane per directory.
#pragma once

#include <string>

#include <tl/expected.hpp>

namespace sluice {

// process_lock: an exclusive lock on a file, held until destroyed (or the process ends,
// however it ends). The file holds the owner's pid, for people; the lock is what counts.
class process_lock {
 public:
  // take() makes the directory if needed. Refuses, naming the pid, when another process
  // has the lock.
  static tl::expected<process_lock, std::string> take(const std::string& directory,
                                                      const std::string& path);

  process_lock(process_lock&& other) noexcept;
  process_lock(const process_lock&) = delete;
  process_lock& operator=(const process_lock&) = delete;
  ~process_lock();

 private:
  explicit process_lock(int fd) noexcept : fd_{fd} {}
  int fd_{-1};
};

}  // namespace sluice
