// SPDX-License-Identifier: Apache-2.0
// http_client: one HTTP request at a time, by libcurl on the event loop. What is large or slow is
// given up. Names are looked up by a thread of libcurl's.
// Threading: the loop's thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/loop/event_loop.hpp"

namespace sluice::discover {

struct http_request {
  std::string url;
  std::string method{"GET"};
  std::string ca;  // PEM file that an https server is checked with; empty: the host's
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
  std::chrono::milliseconds timeout{10'000};
};

struct http_response {
  long status{};      // 0: there is none
  std::string error;  // why
  std::string body;   // of a request without on_piece
  std::string index;  // X-Consul-Index
};

class http_client {
 public:
  using on_done = std::function<void(http_response)>;
  // on_piece: the body as it comes, for answers that go on; only of those with status 200.
  using on_piece = std::function<void(std::string_view)>;

  explicit http_client(event_loop& loop);
  ~http_client();
  http_client(const http_client&) = delete;
  http_client& operator=(const http_client&) = delete;

  // send() gives up the request before. done() is called once, from the loop, unless the request
  // is given up; it and piece() may destroy this, or send() again.
  void send(http_request request, on_done done, on_piece piece = {});
  void cancel();

 private:
  struct transfer;
  static int on_socket(void* easy, int fd, int what, void* self, void* per_socket);
  static int on_timer(void* multi, long ms, void* self);
  static std::size_t on_body(char* data, std::size_t size, std::size_t n, void* self);
  static std::size_t on_header(char* data, std::size_t size, std::size_t n, void* self);
  void act(int fd, int events);
  void finish_soon(std::string error);

  event_loop& loop_;
  void* multi_{nullptr};
  std::unique_ptr<transfer> now_;  // null: none
  std::set<int> watched_;
  event_loop::timer_id timer_{0};
  event_loop::timer_id end_timer_{0};
  std::shared_ptr<bool> here_{std::make_shared<bool>(true)};  // another one with each request
};

// read_token() is a file's first line; or what is wrong with it.
[[nodiscard]] bool read_token(const std::string& path, std::string& token, std::string& error);
// url_part() escapes what is put into a URL.
[[nodiscard]] std::string url_part(std::string_view text);

}  // namespace sluice::discover
