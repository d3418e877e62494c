// SPDX-License-Identifier: Apache-2.0
// The sockets of an AF_XDP port. DPDK's driver (22.11) keeps them to itself and enters them
// into the map of a program of its own, one per device, and a port has one device per queue
// where the driver has no combined channels (veth). We have one program per interface, and
// enter them ourselves once the workers run:
//
//   for each RX queue: before = xdp_sockets(); set it up; note the new socket
//
// Start-up only, main thread.
#pragma once

#include <vector>

namespace sluice {

// xdp_sockets() returns this process's AF_XDP sockets, ascending.
[[nodiscard]] std::vector<int> xdp_sockets();

}  // namespace sluice
