// SPDX-License-Identifier: Apache-2.0
// A check by a TCP connection: that it is accepted, and what is said over it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "controlplane/health/attempt.hpp"
#include "controlplane/health/conversation.hpp"

namespace sluice::health {

class stream_attempt final : public attempt {
 public:
  stream_attempt(const target& t, probe_tools& tools) noexcept : target_{t}, tools_{tools} {}
  // The connection is reset, not closed in order: 10,000 targets must not leave 10,000
  // TIME_WAIT entries.
  ~stream_attempt() override;

  [[nodiscard]] std::optional<probe_result> start(done_callback done) override;
  [[nodiscard]] probe_result timed_out() override;

 private:
  void on_event();
  [[nodiscard]] std::optional<probe_result> advance();
  [[nodiscard]] std::optional<probe_result> connected();
  [[nodiscard]] std::optional<probe_result> send_output();
  [[nodiscard]] std::optional<probe_result> receive();
  [[nodiscard]] std::uint32_t events() const noexcept;

  const target& target_;
  probe_tools& tools_;
  done_callback done_;
  std::unique_ptr<conversation> talk_;  // null: tcp
  int fd_{-1};
  ip_address to_;  // where it connects to
  std::uint32_t scope_{0};
  bool connecting_{true};
  std::uint32_t watched_{0};
  std::string output_;
  std::size_t sent_{0};
};

}  // namespace sluice::health
