// SPDX-License-Identifier: Apache-2.0
// A worker: polls its RX queues, has the packet path decide, sends. One per core, shares
// nothing with the others but read-only tables. run() is its thread; everything else is
// for the main thread, before or after, except where said.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/version.hpp"
#include "dataplane/abi/worker_state.hpp"
#include "dataplane/connection/table.hpp"
#include "dataplane/path/nat_table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "dataplane/worker/capture.hpp"
#include "dataplane/worker/table_follower.hpp"

struct rte_mbuf;
struct rte_ring;

namespace sluice {

struct worker_rx {
  std::uint16_t device{};  // DPDK's port number
  std::uint16_t queue{};
  std::uint8_t port{};  // number of the port in node.yaml's order
};

struct worker_tx {
  std::uint16_t device{};
  std::uint16_t queue{};
  std::uint32_t longest_chain{0};  // longest frame of several buffers that the device sends
};

// worker_twin: the rings of a port's twin (dataplane/port/twin.hpp).
struct worker_twin {
  rte_ring* to_kernel{};    // null: the port has no twin
  rte_ring* from_kernel{};  // null: another worker takes what comes from the kernel
  const std::atomic<std::uint64_t>* refused{};  // by the kernel; for the same worker to count
};

// worker_peers: the rings between this worker and the others, one per pair and direction.
struct worker_peers {
  std::vector<rte_ring*> to;    // by worker; null: ourselves
  std::vector<rte_ring*> from;  // of the others
};

struct worker_setup {
  std::vector<worker_rx> rx;       // may be empty: a worker that only keeps its place
  std::vector<worker_tx> tx;       // by port number
  std::vector<worker_twin> twins;  // by port number
  std::vector<path_port> ports;    // by port number
  worker_peers peers;
  const flow_owner* owner{};  // null: flows are dealt with where they come in
  unsigned self{0};           // this worker's number
  unsigned burst{32};
  idle_mode idle{idle_mode::busy};
  abi::worker_block* block{};
  path_counters counters;                                    // but for other_backends
  std::vector<const abi::backend_counters*> other_backends;  // of the other workers
  std::byte* connections{};                                  // a mapped connection table file
  std::vector<nat_table*> nat;       // of all workers, by number; outlive them
  persistence_table* persistence{};  // all workers'; outlives them. Null: the worker's own
  const std::atomic<const attached_config*>* config{};
  const std::atomic<capture*>* capture_wanted{};  // null: never
};

class worker {
 public:
  explicit worker(worker_setup setup);
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  // run() returns after request_stop(). On the thread that is pinned to the CPU.
  void run() noexcept;
  void request_stop() noexcept { stop_.store(true, std::memory_order_relaxed); }  // any thread
  [[nodiscard]] const table_follower& tables() const noexcept { return follower_; }
  [[nodiscard]] const capture_tap& tap() const noexcept { return tap_; }

 private:
  struct out_queue {
    std::uint16_t count{0};
    std::uint64_t bytes{0};
    std::array<rte_mbuf*, packet_path::max_burst> mbufs;
  };

  unsigned receive(packet_path& path, const worker_rx& from) noexcept;
  unsigned take_handed(packet_path& path) noexcept;
  void act(unsigned n) noexcept;
  void finish_capture(unsigned n) noexcept;
  void hand_over(rte_mbuf* m, const packet& p) noexcept;
  void send_all() noexcept;
  void send(std::uint8_t port) noexcept;
  void to_twin() noexcept;
  unsigned from_twins() noexcept;
  void hand_out(rte_mbuf* m, const packet& p) noexcept;
  unsigned hand_out_row(unsigned i, unsigned n) noexcept;
  void queue_for(std::uint8_t port, rte_mbuf* m) noexcept;
  void quiescent(packet_path& path) noexcept;
  void rest() noexcept;
  void release(const packet_path& path) noexcept;
  void touch_counters() noexcept;
  void count(abi::counter_id id, std::uint64_t n) noexcept {
    setup_.block->counters[static_cast<std::size_t>(id)].add(n);
  }

  worker_setup setup_;
  connection::connection_table table_;
  std::vector<const nat_table*> nat_;  // if all are there
  table_follower follower_;
  capture_tap tap_;
  std::atomic<bool> stop_{false};

  std::uint64_t now_ns_{0};
  std::uint64_t loops_{0};
  std::uint64_t busy_loops_{0};
  std::uint64_t empty_passes_{0};   // in a row
  std::uint64_t busy_cycles_{0};    // of the current second
  std::uint64_t second_cycles_{0};  // when it began
  std::uint64_t second_ns_{0};
  std::uint64_t ports_used_{0};  // bit i: something waits in out_[i]
  unsigned drop_count_{0};
  unsigned kernel_count_{0};
  std::uint8_t kernel_port_{0};  // where those for the kernel came in
  std::array<rte_mbuf*, packet_path::max_burst> mbufs_{};
  std::array<rte_mbuf*, packet_path::max_burst> drops_{};
  std::array<rte_mbuf*, packet_path::max_burst> for_kernel_{};
  std::array<rte_mbuf*, waiting_places> held_{};  // early fragments, by packet::place
  std::array<packet, packet_path::max_burst> packets_{};
  std::array<out_queue, abi::max_ports> out_{};
  std::uint64_t twins_refused_{0};
  std::vector<std::uint8_t> from_twins_;  // ports whose twins this worker reads
};

}  // namespace sluice
