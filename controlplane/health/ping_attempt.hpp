// SPDX-License-Identifier: Apache-2.0
// A check by ICMP echo.
#pragma once

#include <optional>

#include "controlplane/health/attempt.hpp"
#include "controlplane/health/ping_socket.hpp"

namespace sluice::health {

class ping_attempt final : public attempt {
 public:
  ping_attempt(const target& t, probe_tools& tools) noexcept : target_{t}, tools_{tools} {}
  ~ping_attempt() override {
    if (sequence_) socket_->forget(*sequence_);
  }

  [[nodiscard]] std::optional<probe_result> start(done_callback done) override {
    const auto made = tools_.make_socket(target_);
    if (!made) return no_socket(target_, made.error().value());
    const ip_address to = made->to.value_or(target_.address);
    socket_ = to.is_v4() ? &tools_.ping4 : &tools_.ping6;
    ping_way way{{}, made->scope, made->mark};
    if (!made->to) way.source = target_.check.source;
    auto sent = socket_->send(to, way, [this, done = std::move(done)](probe_result r) {
      sequence_.reset();
      done(std::move(r));
    });
    if (!sent) return std::move(sent.error());
    sequence_ = *sent;
    return std::nullopt;
  }

  [[nodiscard]] probe_result timed_out() override {
    if (sequence_)
      if (auto result = socket_->late_answer(*sequence_)) return std::move(*result);
    return failed(timeout_text(target_) + " waiting for an echo reply");
  }

 private:
  const target& target_;
  probe_tools& tools_;
  ping_socket* socket_{};                  // once started
  std::optional<std::uint16_t> sequence_;  // of the request that is under way
};

}  // namespace sluice::health
