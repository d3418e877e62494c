// SPDX-License-Identifier: Apache-2.0
// Our commands on DPDK's telemetry socket, RUNTIME-DIR/dpdk/eal/dpdk_telemetry.v2
// (docs/telemetry.md). The callbacks run on DPDK's threads, one per client.
#pragma once

#include <string>

#include "dataplane/abi/worker_state.hpp"
#include "dataplane/process/capture_writer.hpp"
#include "dataplane/process/config_link.hpp"

namespace sluice {

// telemetry_source: what the commands show. All of it outlives detach_telemetry().
struct telemetry_source {
  abi::observation_map<std::byte> observations;
  const config_link* config{};  // may be looked at under telemetry_tables only
  capture_writer* captures{};
};

// attach_telemetry() registers the commands (once per process) and has them show `source`.
void attach_telemetry(const telemetry_source& source);
// detach_telemetry() has them show nothing; when it returns no callback uses the source.
void detach_telemetry();

// telemetry_tables: held by who looks at the tables of another thread's config_link, and by
// the owner while it may unmap some.
std::mutex& telemetry_tables();

}  // namespace sluice
