// SPDX-License-Identifier: Apache-2.0
// Several queues of an interface whose driver has no combined channels (veth). DPDK 22.11
// gives such an interface one queue per device, so a port has one device per queue; but
// each device brings its own XDP program, and an interface has one. So the devices are set
// up one after the other, each program taking the place of the one before, and at the end
// the sockets of all are entered into the last one's map:
//
//   for each device: detach_xdp(); before = xdp_sockets(); set up; note the new socket
//   enter_xdp_sockets(interface, sockets)
//
// Start-up only, main thread.
#pragma once

#include <string>
#include <vector>

#include <tl/expected.hpp>

namespace sluice {

// xdp_sockets() returns this process's AF_XDP sockets, ascending.
[[nodiscard]] std::vector<int> xdp_sockets();

// enter_xdp_sockets() has the program attached to the interface send queue i's packets to
// sockets[i].
[[nodiscard]] tl::expected<void, std::string> enter_xdp_sockets(const std::string& interface,
                                                                const std::vector<int>& sockets);

}  // namespace sluice
