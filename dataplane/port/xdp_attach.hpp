// SPDX-License-Identifier: Apache-2.0
// Taking over an interface from a data plane that was killed. Its steering program
// stays attached, and DPDK's AF_XDP PMD (22.11) refuses to start where one is: it
// attaches with XDP_FLAGS_UPDATE_IF_NOEXIST. So, for each AF_XDP port:
//   auto leftover = take_over_xdp("eth1");     before rte_eal_init() / probing the port
//   ... start the port: the PMD attaches a new program with an empty VIP set ...
//   restore_vips("eth1", *leftover);           after rte_eth_dev_start()
// so that traffic flows again also while no control plane is there to fill the set.
// Start-up only, one thread. Needs root and the interface's network namespace.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/bpf_abi.h"

namespace sluice {

struct xdp_leftover {
  bool found{};  // a program of ours was attached, and is not any more
  std::vector<std::pair<sluice_vip_key, sluice_vip_value>> vips;
};

// take_over_xdp() detaches a steering program of ours and returns its VIP set; does
// nothing where none is attached. Refuses, with a text for the operator, when the
// program attached is not ours, or when a running process still holds it: another data
// plane owns the interface.
[[nodiscard]] tl::expected<xdp_leftover, std::string> take_over_xdp(const std::string& interface);

// restore_vips() puts a leftover's VIP set into the program attached now, unless that
// one has entries already: then the control plane was quicker, and knows better.
// Returns how many entries were written.
tl::expected<std::size_t, std::string> restore_vips(const std::string& interface,
                                                    const xdp_leftover& leftover);

// detach_xdp() is for a clean stop, after the port is closed: the program goes, the
// kernel has the interface to itself. Nothing attached is no error.
tl::expected<void, std::string> detach_xdp(const std::string& interface);

}  // namespace sluice
