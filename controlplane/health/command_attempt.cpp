// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/command_attempt.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/abi/address_text.hpp"

namespace sluice::health {
namespace {

int open_process(pid_t pid) noexcept {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

// take_status() waits for a process that has ended.
bool take_status(pid_t pid, siginfo_t& info, int flags) noexcept {
  info = {};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | flags) == 0 && info.si_pid == pid;
}

// bury() reaps a process that was killed, when it is gone: that may take a while.
void bury(event_loop& loop, pid_t pid, int fd) {
  siginfo_t info;
  const auto gone = [pid, fd, &loop] {
    siginfo_t status;
    if (!take_status(pid, status, WNOHANG)) return false;
    loop.remove_fd(fd);
    ::close(fd);
    return true;
  };
  if (gone()) return;
  if (loop.add_fd(fd, EPOLLIN, [gone](std::uint32_t) { (void)gone(); })) {
    take_status(pid, info, 0);
    ::close(fd);
  }
}

// Unblocks signals and gives them back their default handling, in a group of its own.
class spawn_settings {
 public:
  spawn_settings() {
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawn_file_actions_init(&files_);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    ::posix_spawn_file_actions_addopen(&files_, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&files_, 1, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&files_, 2, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addclosefrom_np(&files_, 3);
    ::posix_spawn_file_actions_addchdir_np(&files_, "/");
  }
  ~spawn_settings() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&files_);
  }
  spawn_settings(const spawn_settings&) = delete;
  spawn_settings& operator=(const spawn_settings&) = delete;

  int spawn(pid_t& pid, std::vector<std::string>& words, std::vector<std::string>& environment) {
    const auto pointers = [](std::vector<std::string>& texts) {
      std::vector<char*> out;
      for (std::string& text : texts) out.push_back(text.data());
      out.push_back(nullptr);
      return out;
    };
    const auto arguments = pointers(words);
    const auto variables = pointers(environment);
    return ::posix_spawn(&pid, words[0].c_str(), &files_, &attributes_, arguments.data(),
                         variables.data());
  }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t files_;
};

}  // namespace

probe_result judge_exit(int code, bool weights) {
  if (code == 0) return succeeded("exit code 0");
  const std::string text = "exit code " + std::to_string(code);
  if (code == 1 || !weights) return failed(text);
  const auto weight = static_cast<std::uint32_t>(code - 2);
  return {probe_outcome::ok, text + ": weight " + std::to_string(weight), weight};
}

std::optional<probe_result> command_attempt::start(done_callback done) {
  if (target_.check.command.empty()) return failed("no command");
  // Also of a state that was stored when the node allowed more.
  if (tools_.programs_in && !model::may_run(target_.check.command[0], *tools_.programs_in))
    return failed("this node does not run " + target_.check.command[0]);
  std::vector<std::string> words = target_.check.command;
  std::vector<std::string> environment{
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
      "SLUICE_BACKEND=" + format_ip(target_.address),
      "SLUICE_PORT=" + std::to_string(target_.port)};
  spawn_settings settings;
  if (const int error = settings.spawn(pid_, words, environment); error != 0) {
    pid_ = -1;
    // The process table is full: ours.
    if (error == EAGAIN) return probe_result{probe_outcome::shortage, error_text(error)};
    probe_result result = from_errno(error);
    result.text = target_.check.command[0] + ": " + result.text;
    return result;
  }
  fd_ = open_process(pid_);
  if (fd_ < 0) {
    const int error = errno;
    siginfo_t info;
    ::kill(-pid_, SIGKILL);
    take_status(pid_, info, 0);
    pid_ = -1;
    return from_errno(error);
  }
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
  done_ = std::move(done);
  if (const std::error_code bad = loop_.add_fd(fd_, EPOLLIN, [this](std::uint32_t) { on_exit(); }))
    return probe_result{probe_outcome::shortage, error_text(bad.value())};
  return std::nullopt;
}

command_attempt::~command_attempt() {
  if (fd_ < 0) return;
  loop_.remove_fd(fd_);
  if (pid_ > 0) {
    ::kill(-pid_, SIGKILL);
    bury(loop_, pid_, fd_);
  } else {
    ::close(fd_);
  }
}

std::optional<probe_result> command_attempt::reap() {
  // What it has started and left goes, too, while its number cannot be another's yet.
  siginfo_t info;
  if (!take_status(pid_, info, WNOHANG | WNOWAIT)) return std::nullopt;
  ::kill(-pid_, SIGKILL);
  take_status(pid_, info, 0);
  pid_ = -1;
  if (info.si_code == CLD_EXITED) return judge_exit(info.si_status, target_.check.weights);
  return failed("killed by signal " + std::to_string(info.si_status));
}

void command_attempt::on_exit() {
  auto result = reap();
  if (!result) return;
  const done_callback done = std::move(done_);
  done(std::move(*result));
}

probe_result command_attempt::timed_out() {
  if (auto result = reap()) return std::move(*result);
  return failed(timeout_text(target_) + ", killed");
}

}  // namespace sluice::health
