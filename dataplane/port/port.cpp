// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/port.hpp"

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <limits>

#include "dataplane/path/flow_owner.hpp"
#include "dataplane/port/kernel_interface.hpp"
#include "dataplane/port/xdp_program.hpp"
#include "dataplane/port/xdp_queues.hpp"

namespace sluice {
namespace {

// DPDK's AF_XDP driver ignores the numbers of descriptors: its rings have 2048, and it
// fills one RX ring's worth in advance.
constexpr unsigned af_xdp_buffers_per_queue = 3 * 2048;
constexpr unsigned largest_unsegmented_mtu = 2048 - 14 - 2 * 4 - 4;
// net_pcap takes frames of several buffers without saying so, up to RTE_ETH_PCAP_SNAPLEN, and
// drops longer ones silently.
constexpr std::uint32_t longest_pcap_chain = 0x3f00;
constexpr std::uint64_t wanted_rss = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

template <std::size_t N>
void copy_text(std::array<char, N>& to, const std::string& from) noexcept {
  to.fill('\0');
  std::memcpy(to.data(), from.data(), std::min(from.size(), N - 1));
}

std::string hint(const device_plan& plan, int error) {
  const std::string& device = plan.config->device;
  if (plan.config->kind == device_kind::pci) {
    const std::string driver = pci_driver(plan.parts.front().name);
    if (driver != "vfio-pci" && driver.substr(0, 3) != "mlx")
      return "; it is bound to " + (driver.empty() ? "no driver" : driver) +
             ": bind it to vfio-pci (dpdk-devbind.py -b vfio-pci " + device + ")";
  }
  if (error == -ENODEV || error == -ENOENT || error == -ENXIO)
    return "; is the driver's package installed (librte-net-...), and is its name right?";
  if (error == -EPERM || error == -EACCES) return "; root is needed";
  return "; the driver's own message is above";
}

tl::expected<void, std::string> probe_part(const device_plan& plan, const device_part& part,
                                           std::uint16_t& device) {
  const std::string who = "port " + plan.config->name + ": " + part.name + ": ";
  if (plan.config->kind != device_kind::pci) {
    const int error = rte_dev_probe(part.arguments.c_str());
    if (error != 0)
      return tl::unexpected{who + "cannot be opened: " + rte_strerror(-error) + hint(plan, error)};
  }
  if (rte_eth_dev_get_port_by_name(part.name.c_str(), &device) != 0)
    return tl::unexpected{who + "no DPDK driver has taken it" + hint(plan, -ENODEV)};
  return {};
}

// set_indirection() has the device spread flows as flow_owner does. Where it cannot, more
// packets are handed from worker to worker.
void set_indirection(port& p) {
  const auto queues = static_cast<std::uint16_t>(p.rx.size() / p.devices.size());
  if (queues < 2 || p.rss_entries < flow_owner::entries ||
      p.rss_entries > RTE_ETH_RSS_RETA_SIZE_512)
    return;
  std::array<rte_eth_rss_reta_entry64, RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE> table{};
  for (std::uint16_t i = 0; i < p.rss_entries; ++i) {
    rte_eth_rss_reta_entry64& group = table[i / RTE_ETH_RETA_GROUP_SIZE];
    group.mask = ~std::uint64_t{0};
    group.reta[i % RTE_ETH_RETA_GROUP_SIZE] =
        static_cast<std::uint16_t>(i % flow_owner::entries % queues);
  }
  for (const std::uint16_t device : p.devices)
    if (rte_eth_dev_rss_reta_update(device, table.data(), p.rss_entries) != 0)
      p.add_note("the device keeps its own RSS table");
}

}  // namespace

void port::add_note(const std::string& text) {
  if (text.empty()) return;
  if (!note.empty()) note += "; ";
  note += text;
}

tl::expected<port, std::string> probe_port(const device_plan& plan) {
  port p;
  p.plan = &plan;
  p.note = plan.note;
  p.numa_node = plan.numa_node;
  for (const device_part& part : plan.parts) {
    std::uint16_t device = 0;
    if (auto done = probe_part(plan, part, device); !done) {
      close_port(p);
      return tl::unexpected{done.error()};
    }
    p.devices.push_back(device);
  }
  rte_eth_dev_info info{};
  const std::uint16_t first = p.devices.front();
  rte_ether_addr mac{};
  if (rte_eth_dev_info_get(first, &info) != 0 || rte_eth_macaddr_get(first, &mac) != 0) {
    close_port(p);
    return tl::unexpected{"port " + plan.config->name + ": the device does not answer"};
  }
  const auto parts = static_cast<unsigned>(p.devices.size());
  p.max_rx_queues = parts * info.max_rx_queues;
  p.max_tx_queues = parts * info.max_tx_queues;
  p.rss_types = info.flow_type_rss_offloads;
  p.rss_key_bytes = info.hash_key_size;
  p.rss_entries = info.reta_size;
  p.scatters = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
  p.offers_segments = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
  p.driver = info.driver_name != nullptr ? info.driver_name : "";
  p.longest_chain = p.driver == "net_pcap" ? longest_pcap_chain
                    : p.offers_segments    ? std::numeric_limits<std::uint32_t>::max()
                                           : 0;
  std::memcpy(p.mac.data(), mac.addr_bytes, p.mac.size());
  if (p.numa_node < 0) p.numa_node = rte_eth_dev_socket_id(first);
  if (std::uint16_t mtu = 0; rte_eth_dev_get_mtu(first, &mtu) == 0 && mtu != 0) p.mtu = mtu;
  if (const auto nic = read_interface(info.if_index)) {
    p.kernel_index = nic->index;
    p.kernel_name = nic->name;
    if (nic->mtu != 0) p.mtu = nic->mtu;  // the drivers over a netdev do not ask for it
  }
  // With frames of one buffer only, NIC drivers take their faster functions.
  if (plan.config->kind == device_kind::pci && p.mtu <= largest_unsegmented_mtu) {
    p.scatters = p.offers_segments = false;
    p.longest_chain = 0;
  }
  return p;
}

tl::expected<void, std::string> configure_port(port& p, unsigned workers,
                                               const wire::rss_key& key) {
  const auto parts = static_cast<unsigned>(p.devices.size());
  if (p.max_tx_queues < workers)
    return tl::unexpected{"it has " + std::to_string(p.max_tx_queues) + " TX queue" +
                          (p.max_tx_queues == 1 ? "" : "s")};
  unsigned rx = std::min(p.max_rx_queues, std::max(1u, p.plan->config->queues.value_or(workers)));
  unsigned tx = workers;
  // AF_XDP: every queue has a socket or its packets pass us by, and queues come in pairs.
  if (p.is_af_xdp()) rx = tx = p.max_rx_queues;

  std::array<std::uint8_t, 64> long_key{};
  std::ranges::copy(key, long_key.begin());
  const auto try_queues = [&](unsigned rx_queues, unsigned tx_queues) {
    rte_eth_conf conf{};
    const std::uint64_t rss = p.rss_types & wanted_rss;
    if (rx_queues > 1 && rss != 0) {
      conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
      conf.rx_adv_conf.rss_conf.rss_hf = rss;
      if (p.rss_key_bytes >= key.size() && p.rss_key_bytes <= long_key.size()) {
        conf.rx_adv_conf.rss_conf.rss_key = long_key.data();
        conf.rx_adv_conf.rss_conf.rss_key_len = p.rss_key_bytes;
      }
    }
    if (p.scatters) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
    if (p.offers_segments) conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    for (const std::uint16_t device : p.devices)
      if (const int error =
              rte_eth_dev_configure(device, static_cast<std::uint16_t>(rx_queues / parts),
                                    static_cast<std::uint16_t>(tx_queues / parts), &conf);
          error != 0)
        return error;
    return 0;
  };
  int error = try_queues(rx, tx);
  if (error != 0 && rx != tx && std::min(p.max_rx_queues, p.max_tx_queues) >= workers) {
    // Some drivers (tap) want as many of the one as of the other.
    rx = tx = workers;
    error = try_queues(rx, tx);
  }
  if (error != 0)
    return tl::unexpected{"it refuses " + std::to_string(rx) + " RX and " + std::to_string(tx) +
                          " TX queues: " + rte_strerror(-error)};
  for (const std::uint16_t device : p.devices)
    if (rte_eth_dev_adjust_nb_rx_tx_desc(device, &p.rx_descriptors, &p.tx_descriptors) != 0)
      p.rx_descriptors = p.tx_descriptors = 512;
  const auto spread = [&p, parts](unsigned queues) {
    std::vector<device_queue> out;
    for (const std::uint16_t device : p.devices)
      for (unsigned q = 0; q < queues / parts; ++q)
        out.push_back({device, static_cast<std::uint16_t>(q)});
    return out;
  };
  p.rx = spread(rx);
  p.tx = spread(tx);
  return {};
}

unsigned port_buffers(const port& p) noexcept {
  const auto rx = static_cast<unsigned>(p.rx.size());
  const auto tx = static_cast<unsigned>(p.tx.size());
  if (p.is_af_xdp() || p.driver == "net_af_xdp") return rx * af_xdp_buffers_per_queue;
  return rx * p.rx_descriptors + tx * p.tx_descriptors;
}

tl::expected<void, std::string> start_port(port& p,
                                           const std::function<rte_mempool*(unsigned)>& pool_of) {
  const auto fail = [&p](const std::string& what, int error) {
    return tl::unexpected{"port " + p.name() + ": " + what + ": " + rte_strerror(-error) +
                          hint(*p.plan, error)};
  };
  const driver_keeps_off guard;  // see xdp_program.hpp
  for (unsigned q = 0; q < p.rx.size(); ++q) {
    std::vector<int> before;
    if (p.is_af_xdp()) before = xdp_sockets();
    const auto socket = static_cast<unsigned>(rte_eth_dev_socket_id(p.rx[q].device));
    if (const int error = rte_eth_rx_queue_setup(p.rx[q].device, p.rx[q].queue, p.rx_descriptors,
                                                 socket, nullptr, pool_of(q));
        error != 0)
      return fail("RX queue " + std::to_string(q), error);
    if (p.is_af_xdp()) {
      std::vector<int> fresh;
      std::ranges::set_difference(xdp_sockets(), before, std::back_inserter(fresh));
      if (fresh.size() != 1) return fail("finding the socket of RX queue " + std::to_string(q), 0);
      p.xdp_sockets.push_back(fresh.front());
    }
  }
  for (unsigned q = 0; q < p.tx.size(); ++q) {
    const auto socket = static_cast<unsigned>(rte_eth_dev_socket_id(p.tx[q].device));
    if (const int error = rte_eth_tx_queue_setup(p.tx[q].device, p.tx[q].queue, p.tx_descriptors,
                                                 socket, nullptr);
        error != 0)
      return fail("TX queue " + std::to_string(q), error);
  }
  for (const std::uint16_t device : p.devices)
    if (const int error = rte_eth_dev_start(device); error != 0) return fail("start", error);
  p.started = true;
  set_indirection(p);
  return {};
}

tl::expected<void, std::string> open_twin(port& p, rte_mempool* pool) {
  auto made = twin::make(p.plan->config->twin_name(), p.mac, p.mtu, pool);
  if (!made) return tl::unexpected{"port " + p.name() + ": " + made.error()};
  p.twin = std::move(*made);
  // Without the frames to multicast addresses there is no IPv6 neighbour discovery. Drivers
  // over files and memory hear everything, and can be told nothing.
  for (const std::uint16_t device : p.devices)
    if (rte_eth_allmulticast_enable(device) != 0 && rte_eth_promiscuous_enable(device) != 0 &&
        p.plan->config->kind == device_kind::pci)
      p.add_note("the device takes no multicast: no IPv6 neighbour discovery");
  return {};
}

void close_port(port& p) noexcept {
  const driver_keeps_off guard;
  p.twin.reset();
  for (const std::uint16_t device : p.devices) {
    if (p.started) rte_eth_dev_stop(device);
    rte_eth_dev_close(device);
  }
  p.started = false;
  p.devices.clear();
}

void fill_port_info(const port& p, abi::port_info& info) noexcept {
  info.in_use = 1;
  info.kernel_index = p.twin ? p.twin->kernel_index() : p.kernel_index;
  info.mac = p.mac;
  info.mtu = p.mtu;
  info.rx_queues = static_cast<std::uint16_t>(p.rx.size());
  info.tx_queues = static_cast<std::uint16_t>(p.tx.size());
  info.numa_node = p.numa_node;
  copy_text(info.name, p.name());
  copy_text(info.device, p.plan->config->device);
  copy_text(info.kernel_name, p.twin ? p.twin->name() : p.kernel_name);
  copy_text(info.driver, p.driver);
  copy_text(info.note, p.note);
  info.leaves_rest_to_kernel = p.is_af_xdp() || p.twin ? 1 : 0;
}

void update_port_info(port& p, abi::port_info& info) noexcept {
  rte_eth_stats sum{};
  bool up = p.started;
  for (const std::uint16_t device : p.devices) {
    rte_eth_stats s{};
    if (rte_eth_stats_get(device, &s) == 0) {
      sum.ipackets += s.ipackets;
      sum.ibytes += s.ibytes;
      sum.opackets += s.opackets;
      sum.obytes += s.obytes;
      sum.imissed += s.imissed;
      sum.ierrors += s.ierrors;
      sum.oerrors += s.oerrors;
      sum.rx_nombuf += s.rx_nombuf;
    }
    // The drivers over a netdev say up whatever the netdev's state.
    if (p.kernel_index != 0) continue;
    rte_eth_link link{};
    if (rte_eth_link_get_nowait(device, &link) == 0 && link.link_status == 0) up = false;
  }
  if (p.kernel_index != 0) up = up && interface_is_running(p.kernel_index);
  info.rx_packets.set(sum.ipackets);
  info.rx_bytes.set(sum.ibytes);
  info.tx_packets.set(sum.opackets);
  info.tx_bytes.set(sum.obytes);
  info.rx_missed.set(sum.imissed);
  info.rx_errors.set(sum.ierrors);
  info.tx_errors.set(sum.oerrors);
  info.rx_no_buffer.set(sum.rx_nombuf);
  info.link_up.store(up ? 1 : 0, std::memory_order_relaxed);
  if (p.twin) p.twin->set_carrier(up);
}

}  // namespace sluice
