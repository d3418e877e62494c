// SPDX-License-Identifier: Apache-2.0
// A port of the data plane: one or more DPDK devices behind one name, with what they can
// do and what was made of it. All calls by the main thread, before workers poll it or
// after they have stopped; read_port_stats() and link_is_up() at any time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/worker_state.hpp"
#include "dataplane/packet/toeplitz.hpp"
#include "dataplane/port/device_args.hpp"
#include "dataplane/port/twin.hpp"

struct rte_mempool;

namespace sluice {

// device_queue: where a burst is received from or sent to.
struct device_queue {
  std::uint16_t device{};  // DPDK's port number
  std::uint16_t queue{};
};

struct port {
  const device_plan* plan{};
  std::vector<std::uint16_t> devices;  // DPDK's port numbers, one per part of the plan
  // As the device says.
  unsigned max_rx_queues{1};
  unsigned max_tx_queues{1};
  std::uint64_t rss_types{0};
  std::uint8_t rss_key_bytes{0};   // 0: the device does not say
  std::uint16_t rss_entries{0};    // of its indirection table; 0: it has none that can be set
  bool scatters{false};            // can receive a frame into several buffers
  bool offers_segments{false};     // can be asked to send one from several buffers
  std::uint32_t longest_chain{0};  // what it sends of such a frame, bytes; 0: one buffer only
  std::string driver;
  mac_address mac{};
  std::uint16_t mtu{1500};
  int numa_node{-1};
  unsigned kernel_index{0};
  std::string kernel_name;
  std::uint16_t rx_descriptors{1024};
  std::uint16_t tx_descriptors{1024};
  // As configured.
  std::vector<device_queue> rx;
  std::vector<device_queue> tx;
  std::vector<int> xdp_sockets;  // by RX queue
  std::string note;
  bool started{false};
  std::unique_ptr<sluice::twin> twin;  // the kernel's side; null: none

  [[nodiscard]] const std::string& name() const noexcept { return plan->config->name; }
  [[nodiscard]] bool is_af_xdp() const noexcept {
    return plan->config->kind == device_kind::af_xdp;
  }
  void add_note(const std::string& text);
};

// probe_port() makes the port's devices known to DPDK and asks what they can do.
// PCI devices must have been in the EAL's allow list.
[[nodiscard]] tl::expected<port, std::string> probe_port(const device_plan& plan);

// configure_port() gives the port queues: one TX queue per worker, and as many RX queues
// as there are workers, or as the device has. Fails if it cannot have `workers` TX queues.
// key: for the device's RSS.
[[nodiscard]] tl::expected<void, std::string> configure_port(port& p, unsigned workers,
                                                             const wire::rss_key& key);

// rx_worker() says which of `workers` polls an RX queue of a port.
[[nodiscard]] constexpr unsigned rx_worker(unsigned queue, unsigned workers) noexcept {
  return queue % workers;
}

// port_buffers() returns how many packet buffers the port's queues hold.
[[nodiscard]] unsigned port_buffers(const port& p) noexcept;

// start_port() sets its queues up and starts it. pool_of(q): the buffers of RX queue q.
[[nodiscard]] tl::expected<void, std::string> start_port(
    port& p, const std::function<rte_mempool*(unsigned)>& pool_of);

// open_twin() makes the port's twin (twin.hpp) after the port was started.
[[nodiscard]] tl::expected<void, std::string> open_twin(port& p, rte_mempool* pool);

// close_port() stops and closes it, also one that was only probed.
void close_port(port& p) noexcept;

// fill_port_info() writes what does not change. The kernel's interface of a port with a
// twin is the twin: there the kernel's addresses, routes and neighbours are.
void fill_port_info(const port& p, abi::port_info& info) noexcept;
// update_port_info() writes counters and link state, the latter to the twin, too.
// Housekeeping thread.
void update_port_info(port& p, abi::port_info& info) noexcept;

}  // namespace sluice
