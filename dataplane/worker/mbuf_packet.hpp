// SPDX-License-Identifier: Apache-2.0
// Between DPDK's mbufs and the path's packets. Worker threads.
#pragma once

#include <rte_mbuf.h>

#include <cstddef>
#include <cstdint>

#include "dataplane/path/packet.hpp"

namespace sluice {

// to_packet() describes a received frame. The path sets everything else.
inline void to_packet(rte_mbuf& m, std::uint8_t in_port, packet& p) noexcept {
  p.data = rte_pktmbuf_mtod(&m, std::byte*);
  p.length = m.data_len;
  p.total_length = m.pkt_len;
  p.headroom = rte_pktmbuf_headroom(&m);
  p.in_port = in_port;
}

// from_whole_packet() is from_packet() for a frame in one buffer.
inline void from_whole_packet(const packet& p, rte_mbuf& m) noexcept {
  m.data_off = static_cast<std::uint16_t>(p.data - static_cast<std::byte*>(m.buf_addr));
  m.data_len = static_cast<std::uint16_t>(p.total_length);
  m.pkt_len = p.total_length;
}

// cut_to() shortens a chain to `total` bytes, freeing segments behind the end.
inline void cut_to(rte_mbuf& m, std::uint32_t total) noexcept {
  m.pkt_len = total;
  rte_mbuf* segment = &m;
  std::uint16_t segments = 1;
  while (segment->data_len < total && segment->next != nullptr) {
    total -= segment->data_len;
    segment = segment->next;
    ++segments;
  }
  if (segment->data_len > total) segment->data_len = static_cast<std::uint16_t>(total);
  rte_pktmbuf_free(segment->next);
  segment->next = nullptr;
  m.nb_segs = segments;
}

// from_packet() makes the mbuf what the path has made of the frame.
inline void from_packet(const packet& p, rte_mbuf& m) noexcept {
  const std::ptrdiff_t grown = rte_pktmbuf_mtod(&m, std::byte*) - p.data;
  m.data_off = static_cast<std::uint16_t>(m.data_off - grown);
  m.data_len = static_cast<std::uint16_t>(m.data_len + grown);
  m.pkt_len = static_cast<std::uint32_t>(m.pkt_len + grown);
  if (p.total_length < m.pkt_len) cut_to(m, p.total_length);
}

}  // namespace sluice
