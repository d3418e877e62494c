// SPDX-License-Identifier: Apache-2.0
// Two network namespaces without names: the test process moves into a new one, and a child
// holds another. Both vanish with their processes, also when the test crashes.
#pragma once

#include <sys/types.h>

#include <string>

namespace sluice::test {

class peer_namespace {
 public:
  // Moves the calling thread into a fresh network namespace and makes the peer. Throws
  // std::system_error (EPERM without CAP_SYS_ADMIN).
  peer_namespace();
  ~peer_namespace();
  peer_namespace(const peer_namespace&) = delete;
  peer_namespace& operator=(const peer_namespace&) = delete;

  // Shell commands; a failing one throws std::runtime_error with its text.
  static void here(const std::string& command);
  void there(const std::string& command) const;
  [[nodiscard]] pid_t pid() const noexcept { return child_; }

 private:
  pid_t child_{-1};
};

}  // namespace sluice::test
