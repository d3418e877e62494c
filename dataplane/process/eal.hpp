// SPDX-License-Identifier: Apache-2.0
// Starting and stopping DPDK's environment (EAL). Main thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/placement/plan.hpp"
#include "dataplane/port/device_args.hpp"
#include "dataplane/process/memory.hpp"

namespace sluice {

// eal_arguments() returns the command line for rte_eal_init(), program name first.
// Worker i runs on lcore i + 1; lcore 0 is the calling thread, for housekeeping.
[[nodiscard]] std::vector<std::string> eal_arguments(const node_config& node,
                                                     const placement::worker_plan& places,
                                                     std::span<const device_plan> devices,
                                                     const memory_plan& memory);

// runtime_prefix() is a file name prefix that no other runtime directory has.
[[nodiscard]] std::string runtime_prefix(const std::string& runtime_dir);

// start_eal() may be called once per process. Its telemetry socket is
// RUNTIME-DIR/dpdk/eal/dpdk_telemetry.v2; stop_eal() removes RUNTIME-DIR/dpdk.
[[nodiscard]] tl::expected<void, std::string> start_eal(const std::vector<std::string>& arguments,
                                                        const std::string& runtime_dir);
void stop_eal() noexcept;

}  // namespace sluice
