// SPDX-License-Identifier: Apache-2.0
// server: the HTTP API, on a Unix socket or over TLS. Its own threads, which call the handler.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/access/tls.hpp"
#include "controlplane/api/message.hpp"

namespace sluice::api {

// time_limits: how long a client may take; one that takes longer is hung up on.
struct time_limits {
  std::chrono::milliseconds idle{2'000};      // until the first byte of a request
  std::chrono::milliseconds request{10'000};  // from there to its last byte
  std::chrono::milliseconds answer{30'000};   // from the answer's first byte to its last
  // Of an answer that goes on: how long one piece may take, and how long it may be silent.
  std::chrono::milliseconds piece{10'000};
  std::chrono::milliseconds heartbeat{5'000};
};

class server {
 public:
  using handler = std::function<reply(const request&)>;

  // listen() makes the socket with these permissions and serves. A socket that is there
  // is removed only if nobody answers on it.
  [[nodiscard]] static tl::expected<std::unique_ptr<server>, std::string> listen(
      const std::string& path, unsigned mode, handler handle, const time_limits& limits = {});
  // listen_tls() serves those who bring one of the tokens; those that allow reading only may
  // GET. The web page itself (/ui) is for everybody: it holds nothing.
  [[nodiscard]] static tl::expected<std::unique_ptr<server>, std::string> listen_tls(
      const ip_port& at, access::secured how, handler handle, const time_limits& limits = {});
  // renew() is for a server over TLS: new connections are given this certificate, and further
  // requests need one of these tokens. Any thread.
  void renew(access::secured how);
  // stop() waits for the calls that are being answered, not for slow clients, and removes
  // the socket. Any thread but the handlers'; what handlers wait for must still run.
  void stop();
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

 private:
  class impl;
  explicit server(std::unique_ptr<impl> i);
  std::unique_ptr<impl> impl_;
};

}  // namespace sluice::api
