// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/suspects.hpp"

#include <utility>

#include "controlplane/decision/suspicion.hpp"

namespace sluice::reconcile {
namespace {

constexpr std::uint32_t turns = 5;

}  // namespace

std::vector<std::pair<std::uint32_t, std::uint32_t>> suspects::look(
    const runtime_list& services, const publish::id_book& ids,
    const publish::observations& data_plane) {
  if (instance_ != data_plane.instance()) {
    instance_ = data_plane.instance();
    forget();
  }
  seen_.resize(services.size());
  turn_ = (turn_ + 1) % turns;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> out;
  for (std::uint32_t i = turn_; i < services.size(); i += turns) {
    const service_runtime& s = *services[i];
    if (s.config.protocol != model::protocol::tcp || !is_checked(s.config)) continue;
    seen_[i].resize(s.backends.size());
    for (std::uint32_t b = 0; b < s.backends.size(); ++b) {
      const auto row = s.decided.backends[b].weight == 0
                           ? std::nullopt
                           : ids.find_backend(s.config.name, s.config.backends[b].address);
      const auto before = std::exchange(seen_[i][b], std::nullopt);
      if (!row) continue;
      const publish::counter_sums now = data_plane.backend_sums(*row);
      seen_[i][b] = sums{now[0], now[2], now[4]};
      if (!before || now[0] < before->packets || now[2] < before->opened || now[4] < before->resets)
        continue;
      const std::uint64_t opened = now[2] - before->opened;
      if (decision::never_answered(opened, now[0] - before->packets) ||
          decision::keeps_resetting(opened, now[4] - before->resets))
        out.emplace_back(i, b);
    }
  }
  return out;
}

}  // namespace sluice::reconcile
