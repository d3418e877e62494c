// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/objects.hpp"

#include <algorithm>

namespace sluice::api {
namespace {

constexpr std::uint64_t stalled_after_ns = 2'000'000'000;

publish::counter_sums since(const publish::counter_sums& sums, const publish::counter_sums& base,
                            bool same_counters) {
  publish::counter_sums out = sums;
  if (!same_counters) return out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = sums[i] >= base[i] ? sums[i] - base[i] : 0;
  return out;
}

}  // namespace

view_of_now view_of_now::take(reconcile::controller& c) {
  view_of_now v;
  v.snap = c.look();
  v.index = v.snap.tables.index();
  v.data_plane = c.observations().current();
  v.alive = v.data_plane && v.data_plane->alive();
  v.now_ns = abi::clock_ns(CLOCK_MONOTONIC);
  return v;
}

publish::counter_sums view_of_now::service_counters(std::uint32_t row) const {
  if (!data_plane) return {};
  const abi::service_cold& cold = snap.tables.service_colds[row];
  return since(data_plane->service_sums(row),
               {cold.base_packets, cold.base_bytes, cold.base_opened, cold.base_dropped, 0},
               snap.base_instance == data_plane->instance());
}

publish::counter_sums view_of_now::backend_counters(std::uint32_t row) const {
  if (!data_plane) return {};
  const abi::backend_cold& cold = snap.tables.backend_colds[row];
  return since(
      data_plane->backend_sums(row),
      {cold.base_packets, cold.base_bytes, cold.base_opened, cold.base_closed, cold.base_resets},
      snap.base_instance == data_plane->instance());
}

std::optional<std::uint32_t> view_of_now::service_row(const std::string& name) const {
  const auto at = index.services.find(name);
  return at == index.services.end() ? std::nullopt : std::optional{at->second};
}

std::optional<std::uint32_t> view_of_now::backend_row(std::optional<std::uint32_t> service,
                                                      const ip_address& address) const {
  if (!service) return std::nullopt;
  const auto at = index.backends.find({*service, address});
  return at == index.backends.end() ? std::nullopt : std::optional{at->second};
}

std::string worker_state(const view_of_now& v, std::uint32_t worker) {
  const abi::worker_block& w = v.data_plane->map().worker(worker);
  const auto phase = w.phase.load(std::memory_order_acquire);
  if (!v.alive || phase == abi::worker_phase::stopped || phase == abi::worker_phase::absent)
    return "stopped";
  if (phase == abi::worker_phase::starting) return "starting";
  return w.heartbeat_ns.read() + stalled_after_ns < v.now_ns ? "stalled" : "running";
}

std::string dataplane_state(const view_of_now& v) {
  if (!v.alive) return "absent";
  if (v.data_plane->map().info().heartbeat_ns.read() + stalled_after_ns < v.now_ns)
    return "stalled";
  for (std::uint32_t i = 0; i < v.data_plane->workers(); ++i)
    if (worker_state(v, i) == "stalled") return "stalled";
  return "running";
}

std::string service_state(const reconcile::service_runtime& s) {
  std::size_t wanted = 0;
  std::size_t serving = 0;
  for (std::size_t i = 0; i < s.published.backends.size(); ++i) {
    const auto& b = s.published.backends[i];
    if (b.weight == 0 || s.config.backends[i].sorry || b.admin != abi::shown_admin::enabled)
      continue;
    ++wanted;
    const bool up = b.health == abi::shown_health::up || b.health == abi::shown_health::unchecked ||
                    s.config.backends[i].admin == model::admin_state::up;
    if (up && b.next_hop) ++serving;
  }
  if (serving == 0) return "down";
  return serving == wanted ? "up" : "degraded";
}

std::uint64_t dataplane_generation(const view_of_now& v) {
  std::uint64_t oldest = 0;
  if (!v.alive) return 0;
  for (std::uint32_t i = 0; i < v.data_plane->workers(); ++i) {
    const abi::epoch_cell<>& cell = v.data_plane->map().worker(i).generation;
    if (cell.online.load(std::memory_order_acquire) == 0) continue;
    const std::uint64_t epoch = cell.epoch.load(std::memory_order_acquire);
    oldest = oldest == 0 ? epoch : std::min(oldest, epoch);
  }
  return oldest;
}

}  // namespace sluice::api
