// SPDX-License-Identifier: Apache-2.0
// The checks of ports: driver, queues, NUMA node, MTU, rp_filter.
#include <algorithm>
#include <array>
#include <sstream>

#include "tools/doctor/checks.hpp"

namespace sluice::doctor {

namespace {

// Drivers that run an XDP program before a buffer of the kernel is made. Others do it later, in
// generic mode: right, but slow.
constexpr std::array native_xdp{
    "amd_xgbe",      "atlantic", "bnxt_en",    "cpsw",   "dpaa2-eth", "ena",       "fec",
    "fsl_dpaa2_eth", "gve",      "hv_netvsc",  "i40e",   "iavf",      "ice",       "igb",
    "igc",           "ixgbe",    "ixgbevf",    "mana",   "mlx4_en",   "mlx4_core", "mlx5_core",
    "mvneta",        "mvpp2",    "nfp",        "qede",   "sfc",       "stmmac",    "thunder",
    "tun",           "veth",     "virtio_net", "vmxnet3"};
constexpr std::array zero_copy{"i40e", "ice", "igb", "igc", "ixgbe", "mlx5_core", "stmmac"};
// Their devices stay with the kernel, and DPDK uses them beside it.
constexpr std::array bifurcated{"mlx4_core", "mlx5_core", "mana"};
constexpr std::array for_dpdk{"vfio-pci", "uio_pci_generic", "igb_uio"};

template <std::size_t N>
bool one_of(const std::array<const char*, N>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// node_of() is the NUMA node of a cpu; -1: unknown.
long node_of_cpu(const host_files& files, unsigned cpu) {
  for (const std::string& node : files.names("/sys/devices/system/node"))
    if (node.starts_with("node") &&
        files.cpus("/sys/devices/system/node/" + node + "/cpulist").contains(cpu))
      return std::atol(node.c_str() + 4);
  return -1;
}

// distance() is what the firmware says of two nodes: 10 is the same one.
long distance(const host_files& files, long from, long to) {
  std::istringstream line{
      files.text("/sys/devices/system/node/node" + std::to_string(from) + "/distance")
          .value_or("")};
  long value = 0;
  for (long n = 0; n <= to; ++n)
    if (!(line >> value)) return 0;
  return value;
}

void check_numa(const examination& e, const port_config& p, long node) {
  const std::size_t nodes = e.files.cpus("/sys/devices/system/node/online").size();
  if (node < 0)
    return e.add(
        nodes > 1 ? level::warn : level::ok, "numa", p.name,
        nodes > 1 ? "the firmware does not say which node the device is on" : "one NUMA node",
        nodes > 1 ? "dataplane.workers with cores of the node that the slot belongs to" : "");
  const workers_config& workers = e.node->dataplane.workers;
  const std::string where = "the device is on node " + std::to_string(node);
  if (workers.selection != worker_selection::list)
    return e.add(level::ok, "numa", p.name, where + ", and so will the workers be", "");
  std::set<unsigned> far;
  long furthest = 0;
  for (const unsigned cpu : workers.cpus) {
    const long other = node_of_cpu(e.files, cpu);
    if (other < 0 || other == node) continue;
    far.insert(cpu);
    furthest = std::max(furthest, distance(e.files, node, other));
  }
  if (far.empty()) return e.add(level::ok, "numa", p.name, where + ", as are the workers", "");
  e.add(level::warn, "numa", p.name,
        where + "; workers elsewhere: cpus " + format_cpus(far) +
            (furthest != 0 ? " (distance " + std::to_string(furthest) + ", the own node's is 10)"
                           : ""),
        "dataplane.workers of cpus " +
            format_cpus(
                e.files.cpus("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist")));
}

std::size_t wanted_workers(const node_config& node) {
  switch (node.dataplane.workers.selection) {
    case worker_selection::count:
      return node.dataplane.workers.count;
    case worker_selection::list:
      return node.dataplane.workers.cpus.size();
    case worker_selection::automatic:
      break;
  }
  return 0;
}

void check_queues(const examination& e, const port_config& p, const std::string& interface) {
  std::size_t queues = 0;
  for (const std::string& q : e.files.names("/sys/class/net/" + interface + "/queues"))
    queues += q.starts_with("rx-") ? 1 : 0;
  const std::string seen =
      std::to_string(queues) + (queues == 1 ? " receive queue" : " receive queues");
  const std::size_t workers = wanted_workers(*e.node);
  if (workers > 1 && queues < workers)
    return e.add(level::warn, "rss", p.name, seen + " for " + std::to_string(workers) + " workers",
                 "ethtool -L " + interface + " combined " + std::to_string(workers) +
                     "; where there are no more, dataplane.steering: owner");
  if (workers == 0 && queues == 1)
    return e.add(level::warn, "rss", p.name, seen + ": one worker gets all packets",
                 "ethtool -L " + interface +
                     " combined N, where the device has more; else "
                     "dataplane.steering: owner");
  e.add(level::ok, "rss", p.name, seen, "");
}

// overhead_of_services() is the largest that a service of the state puts before a packet, and
// whether one of these leaves the segment size alone.
struct tunnel_need {
  unsigned overhead{0};
  bool unclamped{false};
  std::string mode;
};
tunnel_need need_of(const examination& e) {
  tunnel_need need;
  if (e.state == nullptr) return need;
  for (const model::service& s : e.state->services)
    for (const model::backend& b : s.backends) {
      const unsigned bytes = model::overhead(s.forward, b.address.is_v4());
      if (bytes == 0) continue;
      if (bytes > need.overhead) {
        need.overhead = bytes;
        need.mode = s.name;
      }
      if (s.mss_clamp.off()) need.unclamped = true;
    }
  return need;
}

void check_mtu(const examination& e, const port_config& p, const std::string& interface) {
  const auto mtu = e.files.number("/sys/class/net/" + interface + "/mtu");
  if (!mtu) return;
  const std::string seen = "MTU " + std::to_string(*mtu);
  const tunnel_need need = need_of(e);
  // Without services: what GUE over IPv4 takes, where tunnels are configured at all.
  const bool tunnels = e.state != nullptr ? need.overhead != 0
                                          : e.node->dataplane.encap_source_ipv4.has_value() ||
                                                e.node->dataplane.encap_source_ipv6.has_value();
  if (!tunnels) return e.add(level::ok, "mtu", p.name, seen, "");
  const unsigned overhead = e.state != nullptr ? need.overhead : 28;
  const long room = *mtu - static_cast<long>(overhead);
  const std::string text = seen + ": " + std::to_string(room) + " bytes in a tunnel" +
                           (need.mode.empty() ? "" : " (" + need.mode + ")");
  if (room >= 1500) return e.add(level::ok, "mtu", p.name, text, "");
  if (e.state != nullptr && !need.unclamped)
    return e.add(level::ok, "mtu", p.name, text + "; the services lower the segment size", "");
  e.add(level::warn, "mtu", p.name, text,
        "an MTU of " + std::to_string(1500 + overhead) +
            " or more on the way to the backends, or "
            "mss-clamp: auto; clients are told by ICMP otherwise");
}

void check_rp_filter(const examination& e, const port_config& p, const std::string& interface) {
  const std::string conf = "/proc/sys/net/ipv4/conf/";
  const long all = e.files.number(conf + "all/rp_filter").value_or(0);
  const long own = e.files.number(conf + interface + "/rp_filter").value_or(0);
  const long value = std::max(all, own);
  if (value != 1) return e.add(level::ok, "rp_filter", p.name, value == 0 ? "off" : "loose", "");
  e.add(level::warn, "rp_filter", p.name, "strict",
        "sysctl -w net.ipv4.conf." + interface +
            ".rp_filter=2: the kernel drops what it would answer by another interface, such as "
            "health checks' answers");
}

void check_interface(const examination& e, const port_config& p) {
  const std::string& interface = p.interface;
  const std::string base = "/sys/class/net/" + interface;
  if (!e.files.exists(base))
    return e.add(level::fail, "driver", p.name, "there is no interface " + interface,
                 "af_xdp:IFACE with one of /sys/class/net");
  const std::string state = e.files.text(base + "/operstate").value_or("unknown");
  if (state == "down")
    e.add(level::fail, "link", p.name, interface + " is down", "ip link set " + interface + " up");
  else
    e.add(level::ok, "link", p.name, interface + " is " + state, "");
  std::string driver = e.files.link(base + "/device/driver").value_or("");
  // Virtual devices have no driver there; a veth's peer is what tells it.
  if (driver.empty() && e.files.exists(base + "/tun_flags")) driver = "tun";
  if (driver.empty() && !e.files.exists(base + "/device")) driver = "a virtual device";
  if (one_of(zero_copy, driver))
    e.add(level::ok, "driver", p.name, driver + ": XDP in the driver, zero-copy", "");
  else if (one_of(native_xdp, driver))
    e.add(level::ok, "driver", p.name, driver + ": XDP in the driver, with a copy", "");
  else
    e.add(level::warn, "driver", p.name,
          (driver.empty() ? "unknown" : driver) + ": not known to run XDP in the driver",
          "a NIC whose driver does (i40e, ice, ixgbe, mlx5_core, ...): generic XDP is slow");
  check_queues(e, p, interface);
  check_numa(e, p, e.files.number(base + "/device/numa_node").value_or(-1));
  check_mtu(e, p, interface);
  check_rp_filter(e, p, interface);
}

void check_pci(const examination& e, const port_config& p) {
  std::string address = p.device.substr(0, p.device.find(','));
  // 03:00.0 is short for 0000:03:00.0.
  if (std::count(address.begin(), address.end(), ':') == 1) address = "0000:" + address;
  const std::string base = "/sys/bus/pci/devices/" + address;
  if (!e.files.exists(base))
    return e.add(level::fail, "driver", p.name, "there is no PCI device " + address,
                 "an address that `lspci -D` shows");
  const std::string driver = e.files.link(base + "/driver").value_or("none");
  if (one_of(for_dpdk, driver) || one_of(bifurcated, driver))
    e.add(level::ok, "driver", p.name, driver, "");
  else
    e.add(level::fail, "driver", p.name, driver,
          "modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci " + address +
              ", or af_xdp:IFACE as the device");
  if (driver == "vfio-pci" && !e.files.link(base + "/iommu_group"))
    e.add(level::warn, "iommu", p.name, "the device is in no IOMMU group", "an IOMMU that is on");
  check_numa(e, p, e.files.number(base + "/numa_node").value_or(-1));
}

}  // namespace

void check_ports(const examination& e) {
  if (e.node == nullptr) return;
  if (e.node->dataplane.ports.empty())
    e.add(level::fail, "ports", "", "node.yaml has none", "at least one in dataplane.ports");
  for (const port_config& p : e.node->dataplane.ports) {
    switch (p.kind) {
      case device_kind::af_xdp:
        check_interface(e, p);
        break;
      case device_kind::pci:
        check_pci(e, p);
        break;
      case device_kind::vdev:
        e.add(level::ok, "driver", p.name, p.device.substr(0, p.device.find(',')), "");
        break;
    }
  }
}

}  // namespace sluice::doctor
