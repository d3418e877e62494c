// SPDX-License-Identifier: Apache-2.0
#include "dataplane/worker/capture.hpp"

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_pcapng.h>
#include <rte_ring.h>

#include "dataplane/packet/headers.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/worker/mbuf_packet.hpp"

namespace sluice {
namespace {

bool within(const ip_prefix& prefix, const ip_address& a) noexcept {
  if (prefix.address.is_v4() != a.is_v4()) return false;
  const unsigned bits = prefix.length + (a.is_v4() ? 96u : 0u);
  for (unsigned i = 0; i < bits / 8; ++i)
    if (prefix.address.bytes[i] != a.bytes[i]) return false;
  if (bits % 8 == 0) return true;
  const unsigned shift = 8 - bits % 8;
  return prefix.address.bytes[bits / 8] >> shift == a.bytes[bits / 8] >> shift;
}

ip_address source_of(const packet& p, const wire::parsed& m) noexcept {
  if (m.version == 4)
    return ip_address::v4(reinterpret_cast<const wire::ipv4_header*>(p.data + m.l3)->source);
  return ip_address::v6(reinterpret_cast<const wire::ipv6_header*>(p.data + m.l3)->source);
}

}  // namespace

bool capture_filter::fits(const packet& p) const noexcept {
  const bool ports = source_port || destination_port;
  if (!protocol && !source && !destination && !ports) return true;
  const wire::parsed m = wire::parse_any(p.data, p.length, p.total_length);
  switch (m.kind) {
    case wire::parse_kind::unreadable:
    case wire::parse_kind::not_ip:
    case wire::parse_kind::group_frame:
      return false;
    default:
      break;
  }
  if (protocol && m.protocol != *protocol) return false;
  if (source && !within(*source, source_of(p, m))) return false;
  if (destination && !within(*destination, wire::destination_of(p, m))) return false;
  if (!ports) return true;
  if (!wire::has_ports(m.kind)) return false;
  const auto& l4 = *reinterpret_cast<const wire::udp_header*>(p.data + m.l4);
  return (!source_port || l4.source_port.host() == *source_port) &&
         (!destination_port || l4.destination_port.host() == *destination_port);
}

[[gnu::noinline]] bool capture_tap::copy_before(const packet* packets, rte_mbuf* const* mbufs,
                                                unsigned n) noexcept {
  // Michael (2004): announced, and still wanted, so it will not be taken away.
  capture* const c = wanted_->load(std::memory_order_seq_cst);
  in_use_.store(c, std::memory_order_seq_cst);
  if (c == nullptr || wanted_->load(std::memory_order_seq_cst) != c) {
    in_use_.store(nullptr, std::memory_order_release);
    return false;
  }
  now_ = c;
  for (unsigned i = 0; i < n; ++i) {
    before_[i] = nullptr;
    if (!c->filter.fits(packets[i])) continue;
    before_[i] = rte_pcapng_copy(mbufs[i]->port, 0, mbufs[i], c->pool, c->snap,
                                 rte_get_tsc_cycles(), RTE_PCAPNG_DIRECTION_IN);
    if (before_[i] == nullptr) c->missed.fetch_add(1, std::memory_order_relaxed);
  }
  return true;
}

// keep() puts the copy of packet i into the file, or drops it: the path has found another
// service. A packet that is handed over is captured where it is decided on.
bool capture_tap::keep(const packet& p, unsigned i) noexcept {
  const bool wanted = p.outcome != verdict::hand_over &&
                      (!now_->filter.service || p.service == *now_->filter.service);
  if (wanted)
    put(before_[i]);
  else
    rte_pktmbuf_free(before_[i]);
  return wanted;
}

void capture_tap::copy_after(const packet& p, rte_mbuf& m, std::uint16_t device) noexcept {
  from_packet(p, m);
  rte_mbuf* const copy = rte_pcapng_copy(device, 0, &m, now_->pool, now_->snap,
                                         rte_get_tsc_cycles(), RTE_PCAPNG_DIRECTION_OUT);
  if (copy == nullptr)
    now_->missed.fetch_add(1, std::memory_order_relaxed);
  else
    put(copy);
}

void capture_tap::put(rte_mbuf* copy) noexcept {
  if (rte_ring_mp_enqueue(now_->ring, copy) == 0) return;
  rte_pktmbuf_free(copy);
  now_->missed.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace sluice
