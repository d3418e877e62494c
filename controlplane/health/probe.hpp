// SPDX-License-Identifier: Apache-2.0
// probe: one check of one target, from connect() to the result. The owner keeps the
// time: it calls timed_out() when the target's timeout has passed.
// Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/health/http_status_parser.hpp"
#include "controlplane/loop/event_loop.hpp"

namespace sluice::health {

enum class probe_outcome : std::uint8_t { ok, failed, shortage };

struct probe_result {
  probe_outcome outcome{};
  std::string text;
  std::optional<std::uint32_t> weight{};  // that the backend shall have from now on
};

class probe {
 public:
  using done_callback = std::function<void(probe_result)>;

  explicit probe(event_loop& loop) noexcept : loop_{loop} {}
  ~probe() { stop(); }
  probe(const probe&) = delete;
  probe& operator=(const probe&) = delete;

  // start() begins a check; `t` must outlive it. A result that is known at once is
  // returned; otherwise done is called with it later, once, by the loop.
  [[nodiscard]] std::optional<probe_result> start(const target& t, const socket_factory& make,
                                                  done_callback done);
  // stop() ends the check without a result. The connection is reset, not closed in
  // order: 10,000 targets must not leave 10,000 TIME_WAIT entries.
  void stop() noexcept;
  // timed_out() ends the check and words the result. An answer that had already arrived
  // counts, though the loop did not get to read it: our lateness is not the target's.
  [[nodiscard]] probe_result timed_out();
  [[nodiscard]] bool running() const noexcept { return fd_ >= 0; }

 private:
  void on_event();
  [[nodiscard]] std::optional<probe_result> advance();
  [[nodiscard]] std::optional<probe_result> connected();
  [[nodiscard]] std::optional<probe_result> send_request();
  [[nodiscard]] std::optional<probe_result> receive();
  [[nodiscard]] probe_result judge_status() const;

  event_loop& loop_;
  const target* target_{nullptr};
  done_callback done_;
  int fd_{-1};
  ip_address to_;  // where it connects to
  std::uint32_t scope_{0};
  enum class phase : std::uint8_t { connecting, sending, receiving } phase_{};
  std::string request_;
  std::size_t sent_{0};
  http_status_parser parser_;
};

// http_request() is the request of an http check, or nothing when its path or host
// holds a character that HTTP does not allow there.
[[nodiscard]] std::optional<std::string> http_request(const target& t);

}  // namespace sluice::health
