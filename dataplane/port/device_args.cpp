// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/device_args.hpp"

#include <algorithm>
#include <set>

#include "dataplane/abi/bpf_abi.h"
#include "dataplane/abi/node_device.hpp"

namespace sluice {
namespace {

bool ends_with_digit(const std::string& s) {
  return !s.empty() && s.back() >= '0' && s.back() <= '9';
}

// numbered() makes a vdev name unique: DPDK finds the driver by the name without its
// number, and two ports need two names.
std::string numbered(const std::string& stem, std::set<std::string>& used) {
  if (ends_with_digit(stem)) {
    used.insert(stem);
    return stem;
  }
  for (unsigned i = 0;; ++i)
    if (const std::string name = stem + std::to_string(i); used.insert(name).second) return name;
}

tl::expected<void, std::string> plan_af_xdp(const port_config& port,
                                            const std::string& steer_object, bool busy,
                                            std::set<std::string>& used, device_plan& plan) {
  const std::string who = "port " + port.name + ": ";
  plan.interface = read_interface(port.interface);
  if (!plan.interface)
    return tl::unexpected{who + "there is no network interface " + port.interface +
                          " (in this network namespace)"};
  if (steer_object.empty())
    return tl::unexpected{who +
                          "steer.bpf.o is not installed; build it, or set SLUICE_BPF_DIR to "
                          "the directory that has it"};
  if (steer_object.find_first_of(",[]") != std::string::npos)
    return tl::unexpected{who + "DPDK cannot take a path with , or [ or ]: " + steer_object};
  const kernel_interface& nic = *plan.interface;
  // All receive queues, or the packets of the others would pass us by.
  unsigned queues = std::min<unsigned>(nic.rx_queues, SLUICE_MAX_XSKS);
  if (port.queues && *port.queues < queues) {
    plan.note = "queues: " + std::to_string(*port.queues) + " of the interface's " +
                std::to_string(queues) + ": fewer with ethtool -L " + nic.name + " combined";
    queues = *port.queues;
  } else if (port.queues && *port.queues > queues) {
    plan.note = "the interface has only " + std::to_string(queues) + " RX queues";
  }
  plan.numa_node = nic.numa_node;
  // DPDK 22.11 counts only combined channels. Where there are none (veth) it gives a
  // device one queue, so the port is made of one device per queue.
  const unsigned per_part = nic.combined ? queues : 1;
  std::string extra;
  // Preferred busy polling lets the worker run the driver's NAPI by system calls. Where
  // there is no hardware to poll (veth), or the worker sleeps, interrupts do better. Then
  // force_copy keeps the PMD from poll(2)ing for up to a second for the wake-up that only
  // zero-copy drivers ask for.
  if (nic.driver == "veth" || nic.driver == "tun")
    extra = ",busy_budget=0";
  else if (!busy)
    extra = ",busy_budget=0,force_copy=1";
  for (unsigned first = 0; first < queues; first += per_part) {
    const std::string name = numbered("net_af_xdp", used);
    plan.parts.push_back({name, name + ",iface=" + nic.name +
                                    ",start_queue=" + std::to_string(first) +
                                    ",queue_count=" + std::to_string(per_part) +
                                    ",xdp_prog=" + steer_object + extra});
  }
  return {};
}

}  // namespace

tl::expected<std::vector<device_plan>, std::string> plan_devices(std::span<const port_config> ports,
                                                                 const std::string& steer_object,
                                                                 bool busy) {
  std::vector<device_plan> plans;
  std::set<std::string> used;
  for (const port_config& port : ports) {
    const auto parsed = parse_device(port.device);
    if (parsed && parsed->kind == device_kind::vdev && ends_with_digit(parsed->id))
      used.insert(parsed->id);
  }
  for (const port_config& port : ports) {
    const auto parsed = parse_device(port.device);
    if (!parsed) return tl::unexpected{"port " + port.name + ": " + parsed.error()};
    device_plan plan;
    plan.config = &port;
    const std::string rest =
        port.device.size() > parsed->id.size() && parsed->kind != device_kind::af_xdp
            ? port.device.substr(parsed->id.size())
            : std::string{};
    switch (parsed->kind) {
      case device_kind::af_xdp:
        if (auto done = plan_af_xdp(port, steer_object, busy, used, plan); !done)
          return tl::unexpected{done.error()};
        break;
      case device_kind::pci: {
        const auto node = pci_numa_node(parsed->id);
        if (!node)
          return tl::unexpected{"port " + port.name + ": there is no PCI device " + parsed->id +
                                "; lspci -D lists what there is"};
        plan.numa_node = *node;
        plan.parts.push_back({parsed->id, parsed->id + rest});
        break;
      }
      case device_kind::vdev: {
        std::string name = numbered(parsed->id, used);
        std::string arguments = name + rest;
        plan.parts.push_back({std::move(name), std::move(arguments)});
        break;
      }
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace sluice
