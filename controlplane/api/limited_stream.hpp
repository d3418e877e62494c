// SPDX-License-Identifier: Apache-2.0
// limited_stream: one client's connection, with a limit on the time that a whole request
// and a whole answer may take. httplib's own limits start anew with every byte, so a few
// clients that send one now and then would keep all threads. One thread; owns nothing.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>

#include <httplib.h>

#include "controlplane/api/server.hpp"

namespace sluice::api {

class limited_stream final : public httplib::Stream {
 public:
  // stop_fd becomes readable when the server ends: requests that are not complete are
  // dropped then, answers get a last second.
  limited_stream(int fd, int stop_fd, const time_limits& limits) noexcept
      : fd_{fd}, stop_fd_{stop_fd}, limits_{limits} {}

  // await_request() returns false when none begins in time.
  bool await_request() {
    answering_ = false;
    if (from_ == to_ && !wait(POLLIN, clock::now() + limits_.idle)) return false;
    deadline_ = clock::now() + limits_.request;
    return true;
  }

  [[nodiscard]] bool is_readable() const override {
    return from_ != to_ || wait(POLLIN, deadline_);
  }
  [[nodiscard]] bool is_writable() const override {
    return wait(POLLOUT, answering_ ? deadline_ : clock::now() + limits_.answer);
  }
  ssize_t read(char* to, std::size_t size) override {
    if (from_ == to_) {
      if (!wait(POLLIN, deadline_)) return -1;
      const ssize_t n = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
      if (n <= 0) return n;
      from_ = 0;
      to_ = static_cast<std::size_t>(n);
    }
    const std::size_t n = std::min(size, to_ - from_);
    std::memcpy(to, buffer_.data() + from_, n);
    from_ += n;
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* from, std::size_t size) override {
    if (!answering_) deadline_ = clock::now() + limits_.answer;
    answering_ = true;
    if (!wait(POLLOUT, deadline_)) return -1;
    return ::send(fd_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  [[nodiscard]] socket_t socket() const override { return fd_; }

 private:
  using clock = std::chrono::steady_clock;

  bool wait(short events, clock::time_point until) const {
    bool stopping = false;
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
      if (left <= 0) return false;
      std::array<pollfd, 2> fds{pollfd{fd_, events, 0}, pollfd{stop_fd_, POLLIN, 0}};
      const int n = ::poll(fds.data(), stopping ? 1 : 2, static_cast<int>(left));
      if (n < 0 && errno != EINTR) return false;
      if (n == 0) return false;
      if (n < 0) continue;
      if (fds[0].revents != 0) return true;
      if (events == POLLIN) return false;  // the server ends
      stopping = true;
      until = std::min(until, clock::now() + std::chrono::seconds{1});
    }
  }

  int fd_;
  int stop_fd_;
  time_limits limits_;
  clock::time_point deadline_{};
  bool answering_{false};
  std::array<char, 16384> buffer_;
  std::size_t from_{0};
  std::size_t to_{0};
};

}  // namespace sluice::api
