// SPDX-License-Identifier: Apache-2.0
// The calls that show what is: services, backends, workers, ports, nodes, counters.
#pragma once

#include <optional>
#include <string>

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

// view_of_now: what several calls need at once.
struct view_of_now {
  reconcile::snapshot snap;
  publish::shown_tables::index_type index;
  std::shared_ptr<const publish::observations> data_plane;  // null: none was ever seen
  bool alive{};
  std::uint64_t now_ns{};  // CLOCK_MONOTONIC

  [[nodiscard]] static view_of_now take(reconcile::controller& c);

  // Counters of a row since it was given to its owner.
  [[nodiscard]] publish::counter_sums service_counters(std::uint32_t row) const;
  [[nodiscard]] publish::counter_sums backend_counters(std::uint32_t row) const;
  // Row numbers; nothing when the service or backend is not in the published tables yet.
  [[nodiscard]] std::optional<std::uint32_t> service_row(const std::string& name) const;
  [[nodiscard]] std::optional<std::uint32_t> backend_row(std::optional<std::uint32_t> service,
                                                         const ip_address& address) const;
};

// worker_state() is "running", "starting", "stopped" or "stalled".
[[nodiscard]] std::string worker_state(const view_of_now& v, std::uint32_t worker);
// dataplane_state() is "running", "stalled" or "absent".
[[nodiscard]] std::string dataplane_state(const view_of_now& v);
// service_state() is "up", "degraded" or "down".
[[nodiscard]] std::string service_state(const reconcile::service_runtime& s);
// dataplane_generation() is the oldest generation that a running worker uses; 0: none.
[[nodiscard]] std::uint64_t dataplane_generation(const view_of_now& v);

[[nodiscard]] json status_json(reconcile::controller& c, const view_of_now& v);
[[nodiscard]] json service_json(const view_of_now& v, const reconcile::service_runtime& s,
                                bool with_backends);
[[nodiscard]] json backends_json(const view_of_now& v, const reconcile::service_runtime& s);
[[nodiscard]] json workers_json(const view_of_now& v);
// xdp: reconcile::read_xdp_counters().
using xdp_counters = std::vector<reconcile::xdp_counters>;
[[nodiscard]] json ports_json(const view_of_now& v, const node_config& node,
                              const xdp_counters& xdp);
[[nodiscard]] json nodes_json(reconcile::controller& c, const view_of_now& v);
[[nodiscard]] json stats_json(const view_of_now& v, const std::optional<std::string>& service,
                              const xdp_counters& xdp);
[[nodiscard]] json drops_json(const view_of_now& v, const xdp_counters& xdp);
[[nodiscard]] json counters_json(const view_of_now& v, const xdp_counters& xdp);

}  // namespace sluice::api
