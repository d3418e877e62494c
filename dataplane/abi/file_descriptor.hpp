// SPDX-License-Identifier: Apache-2.0
// The owner of an open file, socket or BPF object.
#pragma once

#include <unistd.h>

#include <utility>

namespace sluice {

// file_descriptor closes what it holds, if anything, when it ends. One thread at a time.
class file_descriptor {
 public:
  explicit file_descriptor(int fd = -1) noexcept : fd_{fd} {}
  file_descriptor(file_descriptor&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~file_descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace sluice
