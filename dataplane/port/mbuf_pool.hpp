// SPDX-License-Identifier: Apache-2.0
// How many packet buffers of what size the ports need, and making them.
#pragma once

#include <cstdint>
#include <string>

#include <tl/expected.hpp>

struct rte_mempool;

namespace sluice {

// pool_size: one NUMA node's buffers.
struct pool_size {
  unsigned buffers{};
  std::uint16_t data_room{};  // bytes of one buffer, headroom included

  // bytes() is what the pool takes, with its ring and caches, a little generously.
  [[nodiscard]] std::uint64_t bytes() const noexcept;
};

// Buffers that each worker may hold beside the queues: mempool cache and bursts.
inline constexpr unsigned worker_buffers = 1024;

// data_room_for() returns the data room for frames of an MTU: 2048 bytes and headroom as
// a rule, more for jumbo frames of a device that cannot scatter them. xdp: the kernel
// takes another 256 bytes before the frame.
[[nodiscard]] std::uint16_t data_room_for(unsigned mtu, bool xdp) noexcept;

// create_pool() makes the pool of a node (-1: any). one_chunk: AF_XDP registers the
// whole pool with the kernel as one area. The pool lives until the process ends.
[[nodiscard]] tl::expected<rte_mempool*, std::string> create_pool(const pool_size& size, int node,
                                                                  bool one_chunk);

}  // namespace sluice
