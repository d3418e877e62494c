// SPDX-License-Identifier: Apache-2.0
// The device strings of node.yaml's ports. Any thread.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"

namespace sluice {

struct parsed_device {
  device_kind kind{device_kind::vdev};
  std::string interface;  // af_xdp: the kernel's interface
  std::string id;         // without arguments: two ports with the same id are one device
};

// parse_device() reads "af_xdp:IFACE", a PCI address ("0000:03:00.0") or a DPDK vdev
// ("net_pcap0"); the latter two may carry arguments after a comma.
[[nodiscard]] tl::expected<parsed_device, std::string> parse_device(std::string_view text);

}  // namespace sluice
