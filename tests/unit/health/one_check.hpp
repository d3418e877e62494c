// SPDX-License-Identifier: Apache-2.0
// One target, and its first verdict by a real check on loopback.
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/health/socket_address.hpp"
#include "tests/unit/health/test_servers.hpp"

namespace sluice::test {

inline health::target target_of(model::health_kind kind, std::uint16_t port,
                                const char* at = "127.0.0.1") {
  health::target t;
  t.address = address(at);
  t.port = port;
  t.check.kind = kind;
  t.check.interval = std::chrono::milliseconds{2000};
  t.check.timeout = std::chrono::milliseconds{1500};
  t.check = model::without_unused(t.check);
  return t;
}

// one_check: a loop, which servers may share, and a checker.
struct one_check {
  health::verdict first(const health::target& t) {
    health::verdict told;
    told.reason = "no verdict";
    health::health_checker checker{loop, [&](const auto&, const health::verdict& v) {
                                     told = v;
                                     loop.stop();
                                   }};
    checker.set_targets({{t, health::health_state::unknown}});
    checker.probe_now(t);
    const auto begin = event_loop::now();
    loop.run_for(std::chrono::seconds{4});
    took = event_loop::now() - begin;
    return told;
  }

  event_loop loop;
  event_loop::duration took{};
};

// datagram_server answers each datagram with what `answer` makes of it; empty: not at all.
class datagram_server {
 public:
  datagram_server(event_loop& loop, std::function<std::string(std::string_view)> answer,
                  const char* at = "127.0.0.1")
      : loop_{loop}, answer_{std::move(answer)} {
    const ip_address local = address(at);
    fd_ = ::socket(local.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    health::socket_address name = health::to_sockaddr(local, 0, 0);
    if (::bind(fd_, reinterpret_cast<const sockaddr*>(&name.storage), name.length) != 0) return;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&name.storage), &name.length);
    sockaddr_in in{};
    std::memcpy(&in, &name.storage, sizeof in);  // the port is at the same place for IPv6
    port_ = ntohs(in.sin_port);
    (void)loop_.add_fd(fd_, EPOLLIN, [this](std::uint32_t) { serve(); });
  }
  ~datagram_server() {
    loop_.remove_fd(fd_);
    ::close(fd_);
  }
  datagram_server(const datagram_server&) = delete;
  datagram_server& operator=(const datagram_server&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  std::string last;  // datagram

 private:
  void serve() {
    std::array<char, 2048> buffer;
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t n = ::recvfrom(fd_, buffer.data(), buffer.size(), 0,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0) return;
    last.assign(buffer.data(), static_cast<std::size_t>(n));
    const std::string out = answer_(last);
    if (!out.empty())
      ::sendto(fd_, out.data(), out.size(), 0, reinterpret_cast<const sockaddr*>(&from), length);
  }

  event_loop& loop_;
  std::function<std::string(std::string_view)> answer_;
  int fd_{-1};
  std::uint16_t port_{0};
};

}  // namespace sluice::test
