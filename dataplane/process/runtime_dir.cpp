// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/runtime_dir.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace sluice {

tl::expected<process_lock, std::string> process_lock::take(const std::string& directory,
                                                           const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    return tl::unexpected{directory + ": cannot make the runtime directory: " + error.message()};
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return tl::unexpected{path + ": cannot open: " + std::strerror(errno)};
  process_lock lock{fd};
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return tl::unexpected{path + ": cannot lock: " + std::strerror(errno)};
    std::array<char, 32> pid{};
    const ssize_t n = ::pread(fd, pid.data(), pid.size() - 1, 0);
    std::string owner{pid.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
    while (!owner.empty() && owner.back() == '\n') owner.pop_back();
    return tl::unexpected{directory + ": another data plane runs here" +
                          (owner.empty() ? std::string{} : ", pid " + owner) +
                          "; stop it, or set runtime-dir in node.yaml"};
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return tl::unexpected{path + ": cannot write: " + std::strerror(errno)};
  return lock;
}

process_lock::process_lock(process_lock&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}

process_lock::~process_lock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace sluice
