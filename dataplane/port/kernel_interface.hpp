// SPDX-License-Identifier: Apache-2.0
// What the kernel says about a network interface or PCI device. Start-up only; the
// calling thread's network namespace.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/abi/net_types.hpp"

namespace sluice {

struct kernel_interface {
  std::string name;
  unsigned index{};
  mac_address mac{};
  std::uint16_t mtu{};
  std::string driver;     // "veth", "ice"; empty: unknown
  int numa_node{-1};      // -1: unknown, or a virtual interface
  unsigned rx_queues{1};  // in use now
  bool combined{false};   // its queues come in pairs, as DPDK's AF_XDP driver wants them
  bool up{false};
};

// read_interface() returns nothing when there is no such interface.
[[nodiscard]] std::optional<kernel_interface> read_interface(const std::string& name);
// read_interface() by index, 0: nothing.
[[nodiscard]] std::optional<kernel_interface> read_interface(unsigned index);

// interface_is_running() tells whether it is up and has a carrier. Any thread.
[[nodiscard]] bool interface_is_running(unsigned index);

// pci_numa_node() returns the NUMA node of a PCI address, -1 if unknown; nothing when
// there is no such device.
[[nodiscard]] std::optional<int> pci_numa_node(const std::string& address);
// pci_driver() returns the kernel driver that the device is bound to, or "".
[[nodiscard]] std::string pci_driver(const std::string& address);

}  // namespace sluice
