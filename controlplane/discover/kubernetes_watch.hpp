// SPDX-License-Identifier: Apache-2.0
// kubernetes_watch: objects of one kind, listed page by page, then watched; listed again when what
// was watched from is too old (410), or a watch has failed.
// Threading: the loop's thread.
#pragma once

#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "controlplane/discover/http_client.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"

namespace sluice::discover {

// api_access: how a server's API is asked.
struct api_access {
  std::string server;      // a URL
  std::string ca;          // empty: the host's
  std::string token_file;  // empty: none
};
// prepare() puts the token into a request; false, and why, if there is none.
[[nodiscard]] bool prepare(const api_access& access, http_request& r, std::string& error);
// status_text() says why an answer is not what was asked for.
[[nodiscard]] std::string status_text(const http_response& r);

class kubernetes_watch {
 public:
  // What is done with what comes. None of them may destroy the watch.
  struct reader {
    // A page of a list; `first`: of a new one. Returns the list's version, or why it is none.
    std::function<tl::expected<list_page, std::string>(std::string_view body, bool first)> page;
    std::function<watch_line(std::string_view line)> line;
    // A whole list was read, or all that came together.
    std::function<void()> settled;
    std::function<void(std::string why)> failed;
  };
  struct pace {
    std::chrono::milliseconds shortest;  // after a failure
    std::chrono::milliseconds longest;
    unsigned page;  // objects in one answer
  };

  // path: "/api/v1/services"; selector: "&labelSelector=...", or empty.
  kubernetes_watch(event_loop& loop, api_access access, std::string path, std::string selector,
                   pace p, reader r);
  ~kubernetes_watch();
  kubernetes_watch(const kubernetes_watch&) = delete;
  kubernetes_watch& operator=(const kubernetes_watch&) = delete;

  void start();
  void stop();

 private:
  void list_after(std::chrono::milliseconds wait);
  void list(const std::string& next);
  void listed(const http_response& r, bool first);
  void watch_after(std::chrono::milliseconds wait);
  void watch();
  void saw(std::string_view piece);
  // saw_line() is false when the watch is over.
  [[nodiscard]] bool saw_line(std::string_view line);
  void watch_ended(const http_response& r);
  void failed(std::string why);

  event_loop& loop_;
  const api_access access_;
  const std::string url_;  // with a selector
  const pace pace_;
  const reader reader_;
  http_client client_;
  bool started_{false};
  std::string version_;
  std::string line_;  // of a watch, as far as it has come
  event_loop::timer_id timer_{0};
  unsigned failures_{0};  // in a row
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace sluice::discover
