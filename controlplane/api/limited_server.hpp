// SPDX-License-Identifier: Apache-2.0
// limited_server: httplib's server, with time limits that a client cannot stretch, and TLS
// on non-blocking sockets. Threads as httplib's.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include <httplib.h>

#include "controlplane/api/limited_stream.hpp"

namespace sluice::api {

class limited_server final : public httplib::Server {
 public:
  static constexpr unsigned requests_per_connection = 100;

  // tls: nothing for plain HTTP.
  limited_server(const time_limits& limits, std::shared_ptr<SSL_CTX> tls)
      : limits_{limits}, tls_{std::move(tls)}, stop_fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
    keep_alive_max_count_ = requests_per_connection;
  }
  ~limited_server() override {
    if (stop_fd_ >= 0) ::close(stop_fd_);
  }
  limited_server(const limited_server&) = delete;
  limited_server& operator=(const limited_server&) = delete;

  // use() has connections from now on begin with this. Any thread; tls was there before.
  void use(std::shared_ptr<SSL_CTX> tls) {
    const std::lock_guard lock{tls_mutex_};
    tls_ = std::move(tls);
  }

  // end() is stop() that does not wait for clients.
  void end() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(stop_fd_, &one, sizeof one);
    stop();
  }

  // What a handler may do with the connection that its thread is answering.
  [[nodiscard]] static limited_stream& stream() noexcept { return *now_.stream; }
  // hang_up() is for when a body is left unread: what follows is no request.
  static void hang_up() noexcept { now_.hang_up = true; }

 private:
  struct in_work {
    limited_stream* stream;
    bool hang_up;
  };

  bool process_and_close_socket(socket_t fd) override {
    bool fine = false;
    {
      limited_stream stream{fd, stop_fd_, limits_};
      now_ = {&stream, false};
      const auto tls = [this] {
        const std::lock_guard lock{tls_mutex_};
        return tls_;
      }();
      if (tls) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
      if (!tls || stream.begin_tls(tls.get())) {
        for (unsigned left = requests_per_connection; left > 0 && stream.await_request(); --left) {
          bool closed = false;
          fine = process_request(stream, left == 1, closed, nullptr);
          if (!fine || closed || now_.hang_up) break;
        }
        stream.end_tls();
      }
      now_ = {nullptr, false};
    }
    ::shutdown(fd, SHUT_RDWR);
    ::close(fd);
    return fine;
  }

  time_limits limits_;
  std::mutex tls_mutex_;
  std::shared_ptr<SSL_CTX> tls_;
  int stop_fd_;
  static inline thread_local in_work now_{nullptr, false};
};

}  // namespace sluice::api
