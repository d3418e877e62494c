// SPDX-License-Identifier: Apache-2.0
// From the `device` strings of node.yaml to what DPDK is asked for. No DPDK in here.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/port/kernel_interface.hpp"

namespace sluice {

// device_part: one DPDK device. A port has several of them only where DPDK's driver
// cannot give one device several queues.
struct device_part {
  std::string name;       // what DPDK will call it
  std::string arguments;  // DPDK device arguments: "net_pcap0,rx_pcap=a.pcap"
};

struct device_plan {
  const port_config* config{};
  std::vector<device_part> parts;  // at least one
  int numa_node{-1};
  std::optional<kernel_interface> interface;  // af_xdp only
  std::string note;
};

// plan_devices() resolves every port. steer_object: path of the XDP program for af_xdp
// ports. busy: the workers poll without a pause. Errors name the port and say what to do.
[[nodiscard]] tl::expected<std::vector<device_plan>, std::string> plan_devices(
    std::span<const port_config> ports, const std::string& steer_object, bool busy);

}  // namespace sluice
