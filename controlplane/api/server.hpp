// SPDX-License-Identifier: Apache-2.0
// server: the HTTP API on a Unix socket. Its own threads, which call the handler.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/api/message.hpp"

namespace sluice::api {

class server {
 public:
  using handler = std::function<reply(const request&)>;

  // listen() makes the socket with these permissions and serves. A socket that is there
  // is removed only if nobody answers on it.
  [[nodiscard]] static tl::expected<std::unique_ptr<server>, std::string> listen(
      const std::string& path, unsigned mode, handler handle);
  // stop() waits for the calls that are being answered, and removes the socket. Any
  // thread but the handlers'; what handlers wait for must still run.
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
