// SPDX-License-Identifier: Apache-2.0
// A check by ICMP echo.
#pragma once

#include <optional>

#include "controlplane/health/attempt.hpp"
#include "controlplane/health/ping_socket.hpp"

namespace sluice::health {

class ping_attempt final : public attempt {
 public:
  ping_attempt(const target& t, ping_socket& socket) noexcept : target_{t}, socket_{socket} {}
  ~ping_attempt() override {
    if (sequence_) socket_.forget(*sequence_);
  }

  [[nodiscard]] std::optional<probe_result> start(done_callback done) override {
    auto sent = socket_.send(target_.address, target_.check.source,
                             [this, done = std::move(done)](probe_result r) {
                               sequence_.reset();
                               done(std::move(r));
                             });
    if (!sent) return std::move(sent.error());
    sequence_ = *sent;
    return std::nullopt;
  }

  [[nodiscard]] probe_result timed_out() override {
    if (sequence_)
      if (auto result = socket_.late_answer(*sequence_)) return std::move(*result);
    return failed(timeout_text(target_) + " waiting for an echo reply");
  }

 private:
  const target& target_;
  ping_socket& socket_;
  std::optional<std::uint16_t> sequence_;  // of the request that is under way
};

}  // namespace sluice::health
