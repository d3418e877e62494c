// SPDX-License-Identifier: Apache-2.0
// Answers of Consul's HTTP API, and the rules of its blocking queries. Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "controlplane/discover/source.hpp"

namespace sluice::discover {

// parse_consul() takes what /v1/catalog/service/NAME and /v1/health/service/NAME answer. An entry's
// address is the service's own, or the node's where it has none; its weight is that for passing
// checks. Where all weigh 1, as those do that say nothing, the service's own default holds.
[[nodiscard]] report parse_consul(std::string_view body);

// consul_index: which index to wait for next.
class consul_index {
 public:
  // 0: do not wait.
  [[nodiscard]] std::uint64_t wait_for() const noexcept { return last_; }
  // answered() takes an answer's X-Consul-Index; false: the answer has nothing new.
  // One that is 0, or none, would have us ask without waiting for ever: 1 is waited for instead.
  // One that goes backwards (a restored server) begins anew, without waiting.
  [[nodiscard]] bool answered(std::string_view header) noexcept;
  void reset() noexcept { last_ = 0; }

 private:
  std::uint64_t last_{0};
};

}  // namespace sluice::discover
