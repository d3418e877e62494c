// SPDX-License-Identifier: Apache-2.0
// A check by one datagram and what comes back: an answer, or an ICMP error, which is a failure
// at once.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "controlplane/health/attempt.hpp"

namespace sluice::health {

class datagram_attempt final : public attempt {
 public:
  datagram_attempt(const target& t, probe_tools& tools) noexcept : target_{t}, tools_{tools} {}
  ~datagram_attempt() override;

  [[nodiscard]] std::optional<probe_result> start(done_callback done) override;
  [[nodiscard]] probe_result timed_out() override;

 private:
  void on_event();
  [[nodiscard]] std::optional<probe_result> receive();
  [[nodiscard]] std::optional<probe_result> judge(std::string_view answer) const;

  const target& target_;
  probe_tools& tools_;
  done_callback done_;
  std::uint16_t id_{0};  // dns
  int fd_{-1};
};

}  // namespace sluice::health
