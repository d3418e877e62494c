// SPDX-License-Identifier: Apache-2.0
// Layout of the observation segment (written by the data plane, mapped read-only by
// the control plane): who runs, what it uses, and everything that is counted.
//
//   segment_header | dataplane_info | port_info[max_ports] | worker_block[workers] |
//   service_counters[workers][services] | backend_counters[workers][backends] |
//   resets[workers][backends]
//
// Writers: each worker its own worker_block and its own counter rows; the
// housekeeping thread dataplane_info and port_info. The data plane holds an
// exclusive flock on the file while it lives: the lock, not the pid, tells.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::abi {

// One writer each.
struct service_counters {
  counter packets;
  counter bytes;   // from the IP header on, before encapsulation
  counter opened;  // new connections
  counter dropped;
};
// The rest of the cache line is the worker's own: what it needs of the backend to send to it
// (packet_path::egress). A packet so takes one line of its backend, not two. There is no room for
// another counter.
struct alignas(cache_line) backend_counters {
  counter packets;
  counter bytes;   // from the IP header on, before encapsulation
  counter opened;  // connections entered into the table
  counter closed;  // connections that left it; opened - closed: tracked now
  alignas(8) std::array<std::byte, 32> own;
};
// Beside them, for each backend: `resets`, a counter of connections that it has reset, as far as
// its packets come by here (nat, full-nat). Apart, as packets on their way to it have no use for
// it.
static_assert(sizeof(service_counters) == 32 && sizeof(backend_counters) == cache_line &&
              offsetof(backend_counters, own) == 32);

enum class worker_phase : std::uint32_t { absent = 0, starting = 1, running = 2, stopped = 3 };

struct alignas(cache_line) worker_block {
  epoch_cell<> generation;                   // see generation.hpp
  alignas(cache_line) counter heartbeat_ns;  // CLOCK_MONOTONIC, at least every 100 ms
  counter tracked4;                          // IPv4 connections in the table now
  counter tracked6;
  counter busy_permille;  // share of the last second spent on packets
  // Set once at start.
  alignas(cache_line) std::atomic<worker_phase> phase;
  std::int32_t cpu;
  std::int32_t numa_node;   // -1: unknown
  std::uint32_t port_mask;  // bit i: polls port i
  std::uint16_t queue;      // RX and TX queue number on each of its ports
  std::uint16_t reserved0;
  std::uint64_t capacity4;  // entries
  std::uint64_t capacity6;
  std::array<char, 216> connection_path;  // connection table file, NUL-terminated
  std::array<char, 64> placement;         // why this cpu, in words
  std::array<counter, counter_capacity> counters;
};

struct alignas(cache_line) port_info {
  std::uint32_t in_use;
  std::uint32_t kernel_index;  // ifindex of the kernel's netdev, 0: none
  mac_address mac;
  std::uint16_t mtu;
  std::uint16_t rx_queues;
  std::uint16_t tx_queues;
  std::int32_t numa_node;
  std::array<char, 32> name;         // as in node.yaml
  std::array<char, 128> device;      // as in node.yaml
  std::array<char, 32> kernel_name;  // netdev, when there is one
  std::array<char, 32> driver;       // PMD
  std::array<char, 64> note;         // degraded to what, and why
  std::atomic<std::uint32_t> link_up;
  std::uint32_t leaves_rest_to_kernel;  // 1: XDP_PASS; 0: what is not ours is dropped and counted
  counter rx_packets, rx_bytes, tx_packets, tx_bytes, rx_missed, rx_errors, tx_errors,
      rx_no_buffer;  // as the device counts them
};

struct alignas(cache_line) dataplane_info {
  std::int32_t pid;
  std::uint32_t worker_count;
  std::uint32_t port_count;
  std::uint32_t services;    // rows of service_counters per worker
  std::uint32_t backends;    // rows of backend_counters per worker
  std::uint32_t flags;       // dataplane_flags
  std::uint64_t started_ns;  // CLOCK_REALTIME
  std::array<char, 32> version;
  counter heartbeat_ns;     // CLOCK_MONOTONIC, housekeeping thread
  counter config_instance;  // segment_header::instance of the attached config, 0: none
  counter bad_generations;  // generations refused because of impossible values
  std::uint64_t reserved0[8];
};
enum dataplane_flags : std::uint32_t { dataplane_huge_pages = 1, dataplane_idle_busy = 2 };

struct observation_layout {
  std::uint64_t info, ports, workers, services, backends, resets, total;
  std::uint32_t worker_count, service_rows, backend_rows;

  static constexpr bool valid(std::uint32_t worker_count, std::uint32_t services,
                              std::uint32_t backends) noexcept {
    return worker_count >= 1 && worker_count <= max_workers && services <= max_services &&
           backends <= backend_rows_for(max_backends);
  }
  // backend_rows_for() is how many rows so many backends have: a power of two, so that a worker
  // finds a row by the low bits of its number.
  static constexpr std::uint32_t backend_rows_for(std::uint32_t backends) noexcept {
    return std::bit_ceil(backends);
  }
  static constexpr observation_layout of(std::uint32_t worker_count, std::uint32_t services,
                                         std::uint32_t backends) noexcept {
    observation_layout l{};
    l.worker_count = worker_count;
    l.service_rows = services;
    l.backend_rows = backends;
    std::uint64_t at = sizeof(segment_header);
    const auto take = [&at](std::uint64_t bytes) {
      const std::uint64_t here = at;
      at += (bytes + cache_line - 1) / cache_line * cache_line;
      return here;
    };
    l.info = take(sizeof(dataplane_info));
    l.ports = take(sizeof(port_info) * max_ports);
    l.workers = take(sizeof(worker_block) * worker_count);
    // Rows of one worker start on their own page, so that they sit on its NUMA node.
    at = (at + 4095) / 4096 * 4096;
    l.services = take(service_stride(services) * worker_count);
    l.backends = take(backend_stride(backends) * worker_count);
    l.resets = take(reset_stride(backends) * worker_count);
    l.total = at;
    return l;
  }
  static constexpr std::uint64_t service_stride(std::uint32_t rows) noexcept {
    return (std::uint64_t{rows} * sizeof(service_counters) + 4095) / 4096 * 4096;
  }
  static constexpr std::uint64_t backend_stride(std::uint32_t rows) noexcept {
    return (std::uint64_t{rows} * sizeof(backend_counters) + 4095) / 4096 * 4096;
  }
  static constexpr std::uint64_t reset_stride(std::uint32_t rows) noexcept {
    return (std::uint64_t{rows} * sizeof(counter) + 4095) / 4096 * 4096;
  }
};

// Typed access to a mapped observation segment. Byte is std::byte or const std::byte.
template <class Byte>
class observation_map {
  template <class T>
  using like = std::conditional_t<std::is_const_v<Byte>, const T, T>;

 public:
  observation_map() noexcept = default;
  observation_map(Byte* base, const observation_layout& layout) noexcept
      : base_{base}, layout_{layout} {}

  [[nodiscard]] bool empty() const noexcept { return base_ == nullptr; }
  [[nodiscard]] const observation_layout& layout() const noexcept { return layout_; }
  [[nodiscard]] like<dataplane_info>& info() const noexcept {
    return *at<dataplane_info>(layout_.info);
  }
  [[nodiscard]] like<port_info>& port(unsigned i) const noexcept {
    return at<port_info>(layout_.ports)[i];
  }
  [[nodiscard]] like<worker_block>& worker(unsigned i) const noexcept {
    return at<worker_block>(layout_.workers)[i];
  }
  // First row of worker i's counters; index by service_id or backend_ref::index().
  [[nodiscard]] like<service_counters>* services(unsigned i) const noexcept {
    return at<service_counters>(layout_.services +
                                i * observation_layout::service_stride(layout_.service_rows));
  }
  [[nodiscard]] like<backend_counters>* backends(unsigned i) const noexcept {
    return at<backend_counters>(layout_.backends +
                                i * observation_layout::backend_stride(layout_.backend_rows));
  }
  // The same rows as backends(i).
  [[nodiscard]] like<counter>* resets(unsigned i) const noexcept {
    return at<counter>(layout_.resets + i * observation_layout::reset_stride(layout_.backend_rows));
  }

 private:
  template <class T>
  [[nodiscard]] like<T>* at(std::uint64_t offset) const noexcept {
    return reinterpret_cast<like<T>*>(base_ + offset);
  }
  Byte* base_{nullptr};
  observation_layout layout_{};
};

}  // namespace sluice::abi
