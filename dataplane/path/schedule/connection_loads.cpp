// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/schedule/connection_loads.hpp"

#include <algorithm>
#include <limits>

namespace sluice {
namespace {

// Counters read per call: each may be another worker's cache line, 100 ns or so. Called every
// 20 us by an idle worker and every few ms by a busy one.
constexpr std::uint32_t reads_per_call = 64;

}  // namespace

void connection_loads::refresh_row(const abi::config_view& view, abi::backend_ref ref) noexcept {
  if (ref.index() >= rows_) return;
  std::int64_t n = 0;
  for (const abi::backend_counters* worker : others_) n += tracked(worker[ref.index()]);
  if (const abi::backend_cold* cold = view.cold(ref);
      cold != nullptr && instance_ != 0 && view.header().base_instance == instance_)
    n -= static_cast<std::int64_t>(cold->base_opened - cold->base_closed);
  using limits = std::numeric_limits<std::int32_t>;
  elsewhere_[ref.index()] =
      static_cast<std::int32_t>(std::clamp<std::int64_t>(n, limits::min(), limits::max()));
}

void connection_loads::refresh(const abi::config_view& view,
                               std::span<service_state> states) noexcept {
  if (watched_count_ == 0 || view.empty()) return;
  const auto cost = static_cast<std::uint32_t>(others_.size()) + 1;
  std::uint32_t budget = std::max(reads_per_call / cost, 1u);
  // At most once round.
  for (std::uint32_t n = watched_count_; n > 0 && budget > 0;) {
    if (at_service_ >= watched_count_) at_service_ = 0;
    const abi::service_id id = watched_[at_service_];
    const abi::service_row* s = view.service(id);
    if (s == nullptr || (s->kind != abi::scheduler::least_connections &&
                         s->kind != abi::scheduler::weighted_least_connections)) {
      states[static_cast<std::size_t>(id)].loads_watched = false;
      watched_[at_service_] = watched_[--watched_count_];
      at_member_ = 0;
      --n;
      if (watched_count_ == 0) return;
      continue;
    }
    const std::uint32_t members = s->member_count;
    for (; at_member_ < members && budget > 0; --budget)
      refresh_row(view, view.member(*s, at_member_++));
    if (at_member_ < members) return;
    at_member_ = 0;
    ++at_service_;
    --n;
  }
}

}  // namespace sluice
