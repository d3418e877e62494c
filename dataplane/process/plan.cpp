// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "dataplane/abi/bpf_objects.hpp"
#include "dataplane/port/mbuf_pool.hpp"
#include "dataplane/port/twin.hpp"
#include "dataplane/process/data_plane.hpp"

namespace sluice {
namespace {

// What EAL, the drivers and their rings need beside packet buffers.
constexpr std::uint64_t base_memory = std::uint64_t{64} << 20;
constexpr unsigned buffers_per_queue = 2 * 1024;  // RX and TX descriptors
constexpr unsigned buffers_per_xdp_queue = 3 * 2048;

// memory_needed() estimates from above: what the devices allow is not known yet.
std::uint64_t memory_needed(const start_plan& plan) {
  const auto workers = static_cast<unsigned>(plan.places.workers.size());
  pool_size size{workers * worker_buffers + 8192, data_room_for(1500, false)};
  for (const device_plan& device : plan.devices) {
    const bool xdp = device.parts.front().name.starts_with("net_af_xdp");
    unsigned queues = workers;
    if (device.interface) {
      queues = device.interface->rx_queues;
      size.data_room = std::max(size.data_room, data_room_for(device.interface->mtu, xdp));
    }
    size.buffers += queues * (xdp ? buffers_per_xdp_queue : buffers_per_queue);
    if (device.config->wants_twin()) size.buffers += 2 * twin_ring_size;
  }
  return base_memory + size.bytes();
}

}  // namespace

tl::expected<start_plan, std::string> make_plan(const node_config& node, bool change) {
  start_plan plan;
  const dataplane_config& wish = node.dataplane;
  if (wish.ports.empty())
    return tl::unexpected{node.file + ": dataplane.ports: at least one port is needed"};
  if (wish.ports.size() > abi::max_ports)
    return tl::unexpected{fmt::format("{}: dataplane.ports: {} are too many, {} are possible",
                                      node.file, wish.ports.size(), abi::max_ports)};
  auto devices = plan_devices(wish.ports, find_bpf_object("steer"), wish.idle == idle_mode::busy);
  if (!devices) return tl::unexpected{devices.error()};
  plan.devices = std::move(*devices);
  auto machine = placement::read_topology();
  if (!machine) return tl::unexpected{machine.error()};
  plan.machine = std::move(*machine);
  std::vector<placement::port_place> places;
  for (const device_plan& device : plan.devices)
    places.push_back({device.config->name, device.numa_node});
  auto workers = placement::plan_workers(plan.machine, places, wish.workers);
  if (!workers) return tl::unexpected{workers.error()};
  plan.places = std::move(*workers);
  auto memory =
      plan_memory(wish.hugepages, memory_needed(plan), wish.memory_mib.value_or(0), change);
  if (!memory) return tl::unexpected{memory.error()};
  plan.memory = std::move(*memory);
  return plan;
}

std::vector<std::string> describe(const node_config& node, const start_plan& plan) {
  std::vector<std::string> out;
  for (const device_plan& device : plan.devices) {
    std::string line = fmt::format("port {}: {}", device.config->name, device.config->device);
    if (device.interface)
      line += fmt::format(", {} {}, MTU {}, {} RX queue(s), {}", device.interface->driver,
                          format_mac(device.interface->mac), device.interface->mtu,
                          device.interface->rx_queues, device.interface->up ? "up" : "DOWN");
    if (device.numa_node >= 0) line += fmt::format(", NUMA node {}", device.numa_node);
    if (!device.note.empty()) line += " (" + device.note + ")";
    if (device.config->wants_twin()) line += ", twin " + device.config->twin_name();
    out.push_back(line);
  }
  for (std::size_t i = 0; i < plan.places.workers.size(); ++i)
    out.push_back(fmt::format("worker {}: CPU {} ({})", i, plan.places.workers[i].cpu,
                              plan.places.workers[i].reason));
  out.push_back("housekeeping: CPU " + placement::format_cpu_list(plan.places.others));
  out.push_back("memory: " + plan.memory.text);
  out.push_back(
      fmt::format("connections: {} per worker and address family", node.dataplane.connections));
  for (const std::string& note : plan.places.notes) out.push_back("note: " + note);
  return out;
}

}  // namespace sluice
