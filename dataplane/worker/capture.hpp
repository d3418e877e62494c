// SPDX-License-Identifier: Apache-2.0
// A capture in progress: what is wanted, and the ring that workers put copies into. A worker
// looks at one pointer per burst; when no capture is on, that is all it costs.
//
// Threads: made and destroyed by capture_writer (dataplane/process/capture_writer.hpp);
// read by the workers, which take what they want from `pool` and `ring`.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/ids.hpp"
#include "dataplane/path/packet.hpp"

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;

namespace sluice {

// capture_filter: all that is given must fit. Addresses and ports are those of the packet
// as it came in; the service is the one that the path found.
struct capture_filter {
  std::optional<std::uint8_t> protocol;
  std::optional<ip_prefix> source;
  std::optional<ip_prefix> destination;
  std::optional<std::uint16_t> source_port;
  std::optional<std::uint16_t> destination_port;
  std::optional<abi::service_id> service;

  // fits() looks at everything but the service. Worker threads.
  [[nodiscard]] bool fits(const packet& p) const noexcept;
};

struct capture {
  capture_filter filter;
  std::uint32_t snap{};  // bytes of a packet that are kept
  rte_mempool* pool{nullptr};
  rte_ring* ring{nullptr};
  std::atomic<std::uint64_t> missed{0};  // wanted, but there was no room
};

// capture_tap: a worker's side. Its methods but in_use() are the worker's.
class capture_tap {
 public:
  explicit capture_tap(const std::atomic<capture*>* wanted) noexcept : wanted_{wanted} {}

  // begin() before a burst is decided on: copies what may be wanted. False: nothing was,
  // and there is nothing more to do for this burst.
  bool begin(const packet* packets, rte_mbuf* const* mbufs, unsigned n) noexcept {
    if (wanted_ == nullptr || wanted_->load(std::memory_order_relaxed) == nullptr) [[likely]]
      return false;
    return copy_before(packets, mbufs, n);
  }
  // end() after it was decided on, if begin() said so: the copies are written, and those of
  // the packets that are sent. device_of(port): DPDK's number of a port's device.
  template <class DeviceOf>
  void end(const packet* packets, rte_mbuf* const* mbufs, unsigned n,
           DeviceOf&& device_of) noexcept {
    for (unsigned i = 0; i < n; ++i) {
      if (before_[i] == nullptr) continue;
      const packet& p = packets[i];
      if (keep(p, i) && (p.outcome == verdict::forward || p.outcome == verdict::reply))
        copy_after(p, *mbufs[i], device_of(p.out_port));
    }
    in_use_.store(nullptr, std::memory_order_release);
  }

  // in_use() is the capture that the worker is putting packets into now. Any thread.
  [[nodiscard]] const capture* in_use() const noexcept {
    return in_use_.load(std::memory_order_seq_cst);
  }

 private:
  bool copy_before(const packet* packets, rte_mbuf* const* mbufs, unsigned n) noexcept;
  bool keep(const packet& p, unsigned i) noexcept;
  void copy_after(const packet& p, rte_mbuf& m, std::uint16_t device) noexcept;
  void put(rte_mbuf* copy) noexcept;

  const std::atomic<capture*>* wanted_;
  std::atomic<capture*> in_use_{nullptr};  // a hazard pointer
  capture* now_{nullptr};                  // the same, for this thread
  std::array<rte_mbuf*, 256> before_{};
};

}  // namespace sluice
