// SPDX-License-Identifier: Apache-2.0
// Real servers on loopback for the health check tests: a listener that nobody accepts
// from, one whose backlog is full, and an HTTP server with selectable manners.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/loop/event_loop.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::test {

[[nodiscard]] ip_address address(const char* text);

// A listening TCP socket; the kernel completes handshakes, nobody accepts.
class listener {
 public:
  // port 0: any. Throws std::system_error.
  explicit listener(const ip_address& at, std::uint16_t port = 0, int backlog = 4096);
  ~listener() { close(); }
  listener(listener&& other) noexcept : fd_{other.fd_}, port_{other.port_} { other.fd_ = -1; }
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;

  void close() noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  int fd_{-1};
  std::uint16_t port_{};
};

// A listener that drops every further SYN: its backlog is full.
class full_listener {
 public:
  explicit full_listener(const ip_address& at);
  ~full_listener();
  full_listener(const full_listener&) = delete;
  full_listener& operator=(const full_listener&) = delete;
  [[nodiscard]] std::uint16_t port() const noexcept { return listener_.port(); }

 private:
  listener listener_;
  std::vector<int> fillers_;
};

// An HTTP server on a thread of its own.
class http_server {
 public:
  enum class manner : std::uint8_t {
    answer,  // the text, at once, when the request is complete; then close
    drip,    // the text, one byte each 5 ms
    silent,  // accept, never answer
    flood,   // the text again and again, without end
  };

  http_server(const ip_address& at, std::string text, manner how = manner::answer);
  ~http_server();
  http_server(const http_server&) = delete;
  http_server& operator=(const http_server&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return listener_.port(); }
  void set(std::string text, manner how = manner::answer);
  // script() has the next requests answered with these, in order, then with `text`.
  void script(std::deque<std::string> answers);
  [[nodiscard]] std::vector<std::string> requests() const;

 private:
  struct connection {
    std::string in;
    std::string out;
  };
  void accept_all();
  void readable(int fd);
  void writable(int fd);
  void drop(int fd);

  listener listener_;
  mutable std::mutex mutex_;  // guards the four below
  std::string text_;
  manner how_;
  std::deque<std::string> script_;
  std::vector<std::string> requests_;

  std::map<int, connection> connections_;  // the loop's thread only
  event_loop loop_;
  std::thread thread_;
};

}  // namespace sluice::test
