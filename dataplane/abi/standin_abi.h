// SPDX-License-Identifier: Apache-2.0
// What the stand-in in bpf/steer.bpf.c has in its maps: the schedulers' tables and the
// backends, so that it forwards by itself while no data plane does. Plain C that also
// compiles as C++20. The control plane writes all of it but the last two maps.
#pragma once

#include "dataplane/abi/bpf_abi.h"

#define SLUICE_STANDIN_CONFIG_MAP "standin_config"  // array, 1 entry of sluice_standin_config
#define SLUICE_STANDIN_PORTS_MAP "standin_ports"    // hash, sluice_vip_key -> sluice_standin_ports
#define SLUICE_STANDIN_TABLES_MAP "standin_tables"  // array of maps by service, see below
#define SLUICE_STANDIN_ROWS_MAP "standin_rows"      // hash, __u32 backend_ref -> sluice_standin_row
#define SLUICE_PINNED_MAP "pinned"        // hash, sluice_flow -> __u32 backend_ref; data plane
#define SLUICE_HEARTBEAT_MAP "heartbeat"  // array by RX queue, __u64 ns, and one more; data plane

#define SLUICE_STANDIN_SERVICES 65536  // numbers of services
#define SLUICE_STANDIN_ROWS 1048576
#define SLUICE_MAX_PINNED 1048576
#define SLUICE_HEARTBEATS (SLUICE_MAX_XSKS + 1)
// The last one is no heartbeat but the number of a generation: every connection that its tables
// would move is in `pinned`. Before that the stand-in must not have them; and until it has them,
// those that the tables before would move stay in `pinned`.
#define SLUICE_TOLD_GENERATION SLUICE_MAX_XSKS
#define SLUICE_NO_SERVICE 0xffffu
#define SLUICE_NO_BACKEND 0xffffffu  // backend_ref: none

// A worker whose heartbeat is older hangs: its queue's packets go by the stand-in. Workers
// report once a millisecond, the housekeeping thread passes it on every 10 ms. Also what a
// process that is killed loses: its memory is freed before its sockets are closed.
/* A worker that has not turned for so long hangs. Not less: a sleeping worker on a busy machine
 * may wait for a core. A process that is killed is noticed by its socket, at once. */
#define SLUICE_HEARTBEAT_STALE_NS 100000000ull

struct sluice_standin_config {
  __u64 hash_seed;
  __u32 ready;     // 0: nothing has been published: everything is left to the kernel
  __u16 gue_port;  // network order
  __u8 prefix4;    // bits of source4, 0 to 32; 0xff: not configured
  __u8 prefix6;    // bits of source6, 0 to 128; 0xff: not configured
  __u8 source4[4];
  __u8 source6[16];
  __u32 pad;  // 0
  // Whose tables these are; 0: of several generations, so that connections stay where they are.
  __u64 generation;
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_standin_config) == 48, "no hidden padding");

struct sluice_standin_range {
  __u16 first, last;  // host order, inclusive
  __u32 service;
};

// Value for (address, port, protocol): the port's service. For (address, 0, protocol):
// ranges, and the service of all other ports.
struct sluice_standin_ports {
  __u32 service;  // SLUICE_NO_SERVICE: none
  __u32 ranges;
  struct sluice_standin_range range[SLUICE_VIP_RANGES];
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_standin_ports) == 72, "no hidden padding");

// A service's table is an array of __u64: element 0 is the number of slots and how to find
// one; two slots in each that follows, the even one in the low half. A
// slot is a backend_ref. So whatever a packet finds in one table belongs together, and a
// table is replaced by one pointer.
#define SLUICE_TABLE_BY_SOURCE (1ull << 32)  // the slot by the hash of the source address
#define SLUICE_TABLE_BITS4_SHIFT 40          // cut to these many bits, 0 to 32
#define SLUICE_TABLE_BITS6_SHIFT 48          // and these, 0 to 128
#define SLUICE_TABLE_ELEMENTS(slots) (1 + ((slots) + 1) / 2)

struct sluice_standin_row {
  __u8 address[16];
  __u8 next_hop[6];
  __u8 out_mac[6];    // of the interface that the frame leaves by
  __u32 out_ifindex;  // 0: not known
  __u16 mtu;          // bytes of IP packet
  __u8 mode;          // abi::forward_mode
  __u8 keeps;         // 1: connections in the table may go on
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_standin_row) == 36, "no hidden padding");

// sluice_flow: a connection that is not where the hash would put it. Network order.
struct sluice_flow {
  __u8 source[16];
  __u8 destination[16];
  __u16 source_port;
  __u16 destination_port;
  __u8 protocol;
  __u8 pad[3];  // 0
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_flow) == 40, "no hidden padding");
