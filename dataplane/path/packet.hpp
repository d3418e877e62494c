// SPDX-License-Identifier: Apache-2.0
// One packet of a burst as the packet path sees it: a frame in somebody's buffer, and
// the verdict on it. Knows no mbufs: the worker, replay and the tests fill these in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice {

enum class verdict : std::uint8_t {
  drop = 0,       // ends here; `reason` is a drop counter and has been counted
  forward = 1,    // send `data`, `total_length` bytes, to `out_port`
  kernel = 2,     // untouched; the kernel's to judge, `why` says why
  reply = 3,      // the buffer holds our answer (ICMP): send it to `out_port`. `reason` is set
                  // if the packet that is answered counts as a drop
  held = 4,       // an early fragment: keep the buffer at `place` until released() names it
  hand_over = 5,  // untouched; to be decided on by the worker that `out_port` names
};

// Why a packet is left to the kernel.
enum class kernel_reason : std::uint8_t {
  none = 0,
  not_ip,           // ARP, LLDP, more than two VLAN tags, ...
  not_for_a_vip,    // IP, to an address that has no service
  group_frame,      // sent to an Ethernet broadcast or multicast address
  icmp,             // ICMP or ICMPv6 to a VIP
  other_protocol,   // to a VIP, neither TCP nor UDP nor ICMP
  no_service_port,  // to a VIP, no service on that port
  count_
};

// Early fragments that one path has its owner keep at most.
inline constexpr std::size_t waiting_places = 256;

// A frame starts at `data` with its Ethernet header. Headers must lie in the first
// `length` bytes; the rest of a longer packet (`total_length`) may be elsewhere.
struct packet {
  // In and out. The path moves `data` into the headroom when it encapsulates, and cuts
  // padding behind the IP packet off: `total_length` may shrink at the packet's end.
  std::byte* data;             // at an even address
  std::uint32_t length;        // contiguous bytes at data, <= total_length
  std::uint32_t total_length;  // bytes of the frame, without FCS
  std::uint16_t headroom;      // writable bytes before data
  std::uint8_t in_port;

  // Out. `service` and `backend` are set when they are known, whatever the verdict. The word
  // at 24 is written as one for a packet of a known connection (ready.hpp).
  std::uint8_t place;        // held: number of the waiting place
  abi::backend_ref backend;  // none: not known
  abi::service_id service;   // no_service: not known
  abi::counter_id reason;    // drop; counter_id::count_: none
  verdict outcome;
  std::uint8_t out_port;  // forward, reply: index of the data plane's port; hand_over: worker
  kernel_reason why;      // kernel
  std::uint8_t reserved;  // anything
};
static_assert(sizeof(packet) == 32 && offsetof(packet, backend) == 20 &&
              offsetof(packet, service) == 24 && offsetof(packet, reason) == 26 &&
              offsetof(packet, outcome) == 28 && waiting_places <= 256);

}  // namespace sluice
