// SPDX-License-Identifier: Apache-2.0
// The kernel's side of a port that DPDK has taken whole: a TAP with the port's MAC and MTU,
// called sl-NAME. What is for no service goes to it, and what the kernel sends there leaves
// by the port: ARP, IPv6 neighbours, ICMP, SSH, routing daemons.
//
// Reading and writing a TAP are system calls, a microsecond each, and anybody can send
// packets to the host's own addresses: so the workers do neither. They pass packets over
// rings, and a thread of the housekeeping CPUs moves them; when it does not keep up, only
// what is the kernel's is lost (twin_full).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;

namespace sluice {

// Packets that may wait in each direction of a twin: 12 ms of 1 Gbit/s in full frames.
inline constexpr unsigned twin_ring_size = 1024;

// twin: one TAP. Made and destroyed by the main thread; move() by the pump's.
class twin {
 public:
  // make() creates the interface, or takes up the one that an earlier process has left, and
  // sets it up. pool: for what the kernel sends. Refuses a name that is taken by another.
  static tl::expected<std::unique_ptr<twin>, std::string> make(const std::string& name,
                                                               const mac_address& mac,
                                                               std::uint16_t mtu,
                                                               rte_mempool* pool);
  twin(const twin&) = delete;
  twin& operator=(const twin&) = delete;
  ~twin();

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] unsigned kernel_index() const noexcept { return kernel_index_; }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }
  // to_kernel(): any number of workers put packets in; from_kernel(): one takes them out.
  [[nodiscard]] rte_ring* to_kernel() const noexcept { return to_kernel_; }
  [[nodiscard]] rte_ring* from_kernel() const noexcept { return from_kernel_; }

  // move() moves what waits on both sides, a burst at most; returns how many packets.
  unsigned move() noexcept;
  // set_carrier() shows the kernel the state of the port's link.
  void set_carrier(bool up) noexcept;
  // refused() is how many packets the kernel did not take: its interface is down.
  [[nodiscard]] const std::atomic<std::uint64_t>& refused() const noexcept { return refused_; }

 private:
  twin() = default;
  bool write(rte_mbuf& m) noexcept;
  rte_mbuf* read() noexcept;

  std::string name_;
  int fd_{-1};
  unsigned kernel_index_{0};
  std::uint32_t longest_{0};  // frame
  rte_mempool* pool_{nullptr};
  rte_ring* to_kernel_{nullptr};
  rte_ring* from_kernel_{nullptr};
  rte_mbuf* spare_{nullptr};  // the chain that the next frame is read into
  bool carrier_{true};
  std::atomic<std::uint64_t> refused_{0};
};

// twin_pump: the thread that moves the packets of all twins. Runs on the CPUs of the thread
// that starts it, from construction to destruction.
class twin_pump {
 public:
  explicit twin_pump(std::vector<twin*> twins);
  twin_pump(const twin_pump&) = delete;
  twin_pump& operator=(const twin_pump&) = delete;
  ~twin_pump();

 private:
  void run() noexcept;

  std::vector<twin*> twins_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace sluice
