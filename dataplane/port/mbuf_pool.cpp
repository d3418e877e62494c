// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/mbuf_pool.hpp"

#include <rte_errno.h>
#include <rte_mbuf.h>

#include <algorithm>

namespace sluice {
namespace {

constexpr unsigned cache_size = 256;
constexpr unsigned xdp_headroom = 256;  // XDP_PACKET_HEADROOM
constexpr unsigned ethernet = 14 + 2 * 4 + 4;

}  // namespace

std::uint64_t pool_size::bytes() const noexcept {
  // Object header, mbuf and trailer, rounded to the cache line and spread over channels.
  const std::uint64_t each = ((64 + sizeof(rte_mbuf) + data_room + 63) / 64 + 1) * 64;
  return buffers * (each + 2 * sizeof(void*)) + (std::uint64_t{2} << 20);
}

std::uint16_t data_room_for(unsigned mtu, bool xdp) noexcept {
  const unsigned needed = mtu + ethernet + RTE_PKTMBUF_HEADROOM + (xdp ? xdp_headroom : 0);
  const unsigned usual = RTE_MBUF_DEFAULT_BUF_SIZE;
  return static_cast<std::uint16_t>(std::min((std::max(needed, usual) + 63) / 64 * 64, 0xff80u));
}

tl::expected<rte_mempool*, std::string> create_pool(const pool_size& size, int node,
                                                    bool one_chunk) {
  const std::string name = "mbufs" + (node < 0 ? std::string{} : std::to_string(node));
  rte_mempool* pool = rte_pktmbuf_pool_create(name.c_str(), size.buffers, cache_size, 0,
                                              size.data_room, node < 0 ? SOCKET_ID_ANY : node);
  const auto fail = [&](const std::string& why) {
    return tl::unexpected{"cannot make " + std::to_string(size.buffers) + " packet buffers (" +
                          std::to_string(size.bytes() >> 20) + " MiB)" +
                          (node < 0 ? std::string{} : " on NUMA node " + std::to_string(node)) +
                          ": " + why};
  };
  if (pool == nullptr)
    return fail(std::string{rte_strerror(rte_errno)} +
                "; set dataplane.memory, or provide more hugepages");
  if (one_chunk && pool->nb_mem_chunks > 1)
    return fail("AF_XDP needs them in one piece, they are in " +
                std::to_string(pool->nb_mem_chunks) +
                "; run with --iova-mode=va or hugepages: off");
  return pool;
}

}  // namespace sluice
