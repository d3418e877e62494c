// SPDX-License-Identifier: Apache-2.0
#include "controlplane/decision/announcement.hpp"

namespace sluice::decision {

node_verdict judge_node(bool forwarding, const node_memory& before,
                        std::chrono::milliseconds patience, time_point now) {
  if (!before.known) return {{true, forwarding, forwarding, now}, std::nullopt};
  node_verdict out{before, std::nullopt};
  if (forwarding != before.forwarding) {
    out.next.forwarding = forwarding;
    out.next.since = now;
  }
  if (out.next.able == forwarding) return out;
  if (now >= out.next.since + patience)
    out.next.able = forwarding;
  else
    out.again = out.next.since + patience;
  return out;
}

std::string_view to_string(announcement a) noexcept {
  switch (a) {
    case announcement::announced:
      return "announced";
    case announcement::below_quorum:
      return "below quorum";
    case announcement::not_forwarding:
      return "not forwarding";
    case announcement::drained:
      return "drained";
  }
  return "unknown";
}

announcement judge_address(const node_memory& node, bool drained, bool has_quorum) noexcept {
  if (drained) return announcement::drained;
  if (!node.able) return announcement::not_forwarding;
  return has_quorum ? announcement::announced : announcement::below_quorum;
}

}  // namespace sluice::decision
