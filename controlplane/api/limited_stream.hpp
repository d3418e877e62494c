// SPDX-License-Identifier: Apache-2.0
// limited_stream: one client's connection, with a limit on the time that a whole request
// and a whole answer may take. httplib's own limits start anew with every byte, so a few
// clients that send one now and then would keep all threads. One thread; owns nothing but
// the TLS session, if there is one.
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
#include <memory>
#include <string>

#include <httplib.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "controlplane/api/server.hpp"

namespace sluice::api {

class limited_stream final : public httplib::Stream {
 public:
  // stop_fd becomes readable when the server ends: requests that are not complete are
  // dropped then, answers get a last second.
  limited_stream(int fd, int stop_fd, const time_limits& limits) noexcept
      : fd_{fd}, stop_fd_{stop_fd}, limits_{limits} {}

  // begin_tls() shakes hands; false: there is nobody to talk to. `fd` does not block.
  bool begin_tls(SSL_CTX* context) {
    tls_.reset(::SSL_new(context));
    if (!tls_ || ::SSL_set_fd(tls_.get(), fd_) != 1) return false;
    deadline_ = clock::now() + limits_.idle;
    return tls_call([](SSL* s) { return ::SSL_accept(s); }) > 0;
  }
  // end_tls() says good-bye, without waiting for an answer.
  void end_tls() {
    ::ERR_clear_error();
    if (tls_) ::SSL_shutdown(tls_.get());
  }

  // allow() gives an answer that goes on this much more time.
  void allow(std::chrono::milliseconds more) noexcept {
    answering_ = true;
    deadline_ = clock::now() + more;
  }
  // hung_up() tells, without waiting, whether the client is gone or the server ends.
  [[nodiscard]] bool hung_up() const {
    std::array<pollfd, 2> fds{pollfd{fd_, POLLRDHUP, 0}, pollfd{stop_fd_, POLLIN, 0}};
    return ::poll(fds.data(), fds.size(), 0) > 0;
  }

  // await_request() returns false when none begins in time.
  bool await_request() {
    answering_ = false;
    if (!buffered() && !wait(POLLIN, clock::now() + limits_.idle)) return false;
    deadline_ = clock::now() + limits_.request;
    return true;
  }

  [[nodiscard]] bool is_readable() const override { return buffered() || wait(POLLIN, deadline_); }
  [[nodiscard]] bool is_writable() const override {
    return wait(POLLOUT, answering_ ? deadline_ : clock::now() + limits_.answer);
  }
  ssize_t read(char* to, std::size_t size) override {
    if (from_ == to_) {
      const ssize_t n = receive();
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
    if (tls_)
      return tls_call([&](SSL* s) {
        return ::SSL_write(s, from, static_cast<int>(std::min(size, std::size_t{1} << 20)));
      });
    if (!wait(POLLOUT, deadline_)) return -1;
    return ::send(fd_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  [[nodiscard]] socket_t socket() const override { return fd_; }

 private:
  using clock = std::chrono::steady_clock;
  struct free_tls {
    void operator()(SSL* s) const noexcept { ::SSL_free(s); }
  };

  [[nodiscard]] bool buffered() const {
    return from_ != to_ || (tls_ && ::SSL_pending(tls_.get()) > 0);
  }
  ssize_t receive() {
    if (tls_)
      return tls_call([this](SSL* s) {
        return ::SSL_read(s, buffer_.data(), static_cast<int>(buffer_.size()));
      });
    if (!wait(POLLIN, deadline_)) return -1;
    return ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  }
  // tls_call() does step(session) until it is done, failed, or the time is over.
  template <class Step>
  ssize_t tls_call(Step&& step) {
    for (;;) {
      ::ERR_clear_error();
      const int n = step(tls_.get());
      if (n > 0) return n;
      switch (::SSL_get_error(tls_.get(), n)) {
        case SSL_ERROR_WANT_READ:
          if (!wait(POLLIN, deadline_)) return -1;
          break;
        case SSL_ERROR_WANT_WRITE:
          if (!wait(POLLOUT, deadline_)) return -1;
          break;
        case SSL_ERROR_ZERO_RETURN:
          return 0;
        default:
          return -1;
      }
    }
  }

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
  std::unique_ptr<SSL, free_tls> tls_;
  time_limits limits_;
  clock::time_point deadline_{};
  bool answering_{false};
  std::array<char, 16384> buffer_;
  std::size_t from_{0};
  std::size_t to_{0};
};

}  // namespace sluice::api
