// SPDX-License-Identifier: Apache-2.0
// Whether an address is announced: from what is known of the node and what its services say.
// Pure, as decision.hpp is.
//
// 1. A node is able while its data plane forwards. It is not able any more when the data plane has
//    not forwarded for `patience`; then it has to forward for as long, without a break, to be able
//    again. When nothing is remembered, what is found is believed at once.
// 2. A node that is drained announces nothing.
// 3. An address is announced while one of its services has its quorum.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "controlplane/decision/decision.hpp"

namespace sluice::decision {

struct node_memory {
  bool known{false};       // looked at before
  bool able{false};        // what was decided
  bool forwarding{false};  // what was found
  time_point since{};      // when that began

  bool operator==(const node_memory&) const = default;
};

struct node_verdict {
  node_memory next;
  std::optional<time_point> again;  // ask again then, even if nothing happens
};

[[nodiscard]] node_verdict judge_node(bool forwarding, const node_memory& before,
                                      std::chrono::milliseconds patience, time_point now);

enum class announcement : std::uint8_t { announced, below_quorum, not_forwarding, drained };
[[nodiscard]] std::string_view to_string(announcement a) noexcept;

[[nodiscard]] announcement judge_address(const node_memory& node, bool drained,
                                         bool has_quorum) noexcept;

}  // namespace sluice::decision
