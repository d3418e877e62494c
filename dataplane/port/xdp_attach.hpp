// SPDX-License-Identifier: Apache-2.0
// The steering program on an interface, from outside: is one attached, whose is it, off with
// it. The data plane itself replaces a program by its own in one step (xdp_program.hpp);
// take_over_xdp() and restore_vips() are for a PMD that is left alone with the interface:
// DPDK's (22.11) attaches only where nothing is attached (XDP_FLAGS_UPDATE_IF_NOEXIST).
//   auto leftover = take_over_xdp("eth1");     before the port is probed
//   ... start the port: the PMD attaches a new program with an empty VIP set ...
//   restore_vips("eth1", *leftover);           after rte_eth_dev_start()
// Start-up only, one thread. Needs root and the interface's network namespace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/bpf_abi.h"

namespace sluice {

struct xdp_attached {
  std::uint32_t id{};  // 0: none
  std::uint32_t mode_flags{};
};

// attached_xdp() returns the steering program on an interface. Refuses, with a text for the
// operator, a program that is not ours, or one that a running process holds.
[[nodiscard]] tl::expected<xdp_attached, std::string> attached_xdp(const std::string& interface);

struct xdp_leftover {
  bool found{};  // a program of ours was attached, and is not any more
  std::vector<std::pair<sluice_vip_key, sluice_vip_value>> vips;
};

// take_over_xdp() detaches a steering program of ours and returns its VIP set; does
// nothing where none is attached. Refuses what attached_xdp() refuses.
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
