// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/health/test_servers.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace sluice::test {

namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::system_category(), what);
}

struct any_sockaddr {
  sockaddr_storage storage{};
  socklen_t length{};
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

any_sockaddr to_sockaddr(const ip_address& a, std::uint16_t port) {
  any_sockaddr r;
  if (a.is_v4()) {
    sockaddr_in s{};
    s.sin_family = AF_INET;
    s.sin_port = htons(port);
    s.sin_addr.s_addr = a.v4_raw().raw();
    std::memcpy(&r.storage, &s, r.length = sizeof s);
  } else {
    sockaddr_in6 s{};
    s.sin6_family = AF_INET6;
    s.sin6_port = htons(port);
    std::memcpy(&s.sin6_addr, a.bytes.data(), 16);
    std::memcpy(&r.storage, &s, r.length = sizeof s);
  }
  return r;
}

}  // namespace

ip_address address(const char* text) {
  std::array<std::uint8_t, 4> v4{};
  std::array<std::uint8_t, 16> v6{};
  if (::inet_pton(AF_INET, text, v4.data()) == 1) return ip_address::v4(v4);
  if (::inet_pton(AF_INET6, text, v6.data()) == 1) return ip_address::v6(v6);
  throw std::invalid_argument(text);
}

listener::listener(const ip_address& at, std::uint16_t port, int backlog) {
  any_sockaddr a = to_sockaddr(at, port);
  fd_ = ::socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) fail("socket");
  const int on = 1;
  ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd_, a.get(), a.length) != 0 || ::listen(fd_, backlog) != 0) {
    close();
    fail("bind or listen");
  }
  ::getsockname(fd_, reinterpret_cast<sockaddr*>(&a.storage), &a.length);
  sockaddr_in in{};  // the port is at the same place in both families
  std::memcpy(&in, &a.storage, sizeof in);
  port_ = ntohs(in.sin_port);
}

void listener::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

full_listener::full_listener(const ip_address& at) : listener_{at, 0, 0} {
  const any_sockaddr to = to_sockaddr(at, listener_.port());
  for (int i = 0; i < 4; ++i) {
    const int fd = ::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    [[maybe_unused]] const int r = ::connect(fd, to.get(), to.length);
    fillers_.push_back(fd);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
}

full_listener::~full_listener() {
  for (const int fd : fillers_) ::close(fd);
}

http_server::http_server(const ip_address& at, std::string text, manner how)
    : listener_{at}, text_{std::move(text)}, how_{how} {
  const auto bad = loop_.add_fd(listener_.fd(), EPOLLIN, [this](std::uint32_t) { accept_all(); });
  if (bad) throw std::system_error(bad);
  thread_ = std::thread{[this] { loop_.run(); }};
}

http_server::~http_server() {
  loop_.stop();
  thread_.join();
  while (!connections_.empty()) drop(connections_.begin()->first);
}

void http_server::set(std::string text, manner how) {
  const std::lock_guard lock{mutex_};
  text_ = std::move(text);
  how_ = how;
}

void http_server::script(std::deque<std::string> answers) {
  const std::lock_guard lock{mutex_};
  script_ = std::move(answers);
}

std::vector<std::string> http_server::requests() const {
  const std::lock_guard lock{mutex_};
  return requests_;
}

void http_server::accept_all() {
  for (;;) {
    const int fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    connections_[fd] = {};
    if (loop_.add_fd(fd, EPOLLIN, [this, fd](std::uint32_t events) {
          (events & EPOLLOUT) != 0 ? writable(fd) : readable(fd);
        }))
      drop(fd);
  }
}

void http_server::drop(int fd) {
  loop_.remove_fd(fd);
  ::close(fd);
  connections_.erase(fd);
}

void http_server::readable(int fd) {
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) drop(fd);
    return;
  }
  connection& c = connections_[fd];
  c.in.append(buffer.data(), static_cast<std::size_t>(n));
  if (!c.in.ends_with("\r\n\r\n")) return;
  const std::lock_guard lock{mutex_};
  requests_.push_back(c.in);
  if (how_ == manner::silent) return;
  c.out = text_;
  if (!script_.empty()) {
    c.out = std::move(script_.front());
    script_.pop_front();
  }
  if (loop_.modify_fd(fd, EPOLLOUT)) drop(fd);
}

void http_server::writable(int fd) {
  connection& c = connections_[fd];
  manner how;
  {
    const std::lock_guard lock{mutex_};
    how = how_;
  }
  const std::size_t want = how == manner::drip ? 1 : c.out.size();
  const ssize_t n = ::send(fd, c.out.data(), want, MSG_NOSIGNAL);
  if (n < 0) {
    if (errno != EAGAIN) drop(fd);
    return;
  }
  if (how == manner::flood) return;
  c.out.erase(0, static_cast<std::size_t>(n));
  if (c.out.empty()) return drop(fd);
  if (how != manner::drip) return;
  if (loop_.modify_fd(fd, 0)) return drop(fd);
  loop_.call_after(std::chrono::milliseconds{5}, [this, fd] {
    if (connections_.contains(fd) && loop_.modify_fd(fd, EPOLLOUT)) drop(fd);
  });
}

}  // namespace sluice::test
