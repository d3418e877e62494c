// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/health/peer_namespace.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <system_error>

namespace sluice::test {

peer_namespace::peer_namespace() {
  std::array<int, 2> ready{};
  if (::pipe(ready.data()) != 0) throw std::system_error(errno, std::system_category(), "pipe");
  child_ = ::fork();
  if (child_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ready[0]);
    const int error = ::unshare(CLONE_NEWNET) == 0 ? 0 : errno;
    [[maybe_unused]] const auto n = ::write(ready[1], &error, sizeof error);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  int error = EIO;
  [[maybe_unused]] const auto n = ::read(ready[0], &error, sizeof error);
  ::close(ready[0]);
  if (error == 0 && ::unshare(CLONE_NEWNET) != 0) error = errno;
  if (error != 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    throw std::system_error(error, std::system_category(), "unshare(CLONE_NEWNET)");
  }
}

peer_namespace::~peer_namespace() {
  ::kill(child_, SIGKILL);
  ::waitpid(child_, nullptr, 0);
}

void peer_namespace::here(const std::string& command) {
  if (std::system(("set -e\n" + command).c_str()) != 0)
    throw std::runtime_error("failed: " + command);
}

void peer_namespace::there(const std::string& command) const {
  here("nsenter -t " + std::to_string(child_) + " -n sh -ec '" + command + "'");
}

}  // namespace sluice::test
