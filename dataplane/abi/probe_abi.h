// SPDX-License-Identifier: Apache-2.0
// What bpf/probe.bpf.c has in its maps: where the health checks' packets that travel the
// data path go, and which replies belong to them. Plain C that also compiles as C++20.
// Written by the control plane (controlplane/bpf_loader/probe_program.hpp); `probe_flows`
// by the program itself. Addresses are 16 bytes, as in bpf_abi.h.
#pragma once

#include "dataplane/abi/bpf_abi.h"

#define SLUICE_PROBE_TX_PROGRAM "sluice_probe_tx"
#define SLUICE_PROBE_RX_PROGRAM "sluice_probe_rx"
#define SLUICE_PROBE_CONFIG_MAP "probe_config"    // array, 1 entry of sluice_probe_config
#define SLUICE_PROBE_TARGETS_MAP "probe_targets"  // hash, __u32 mark -> sluice_probe_target
#define SLUICE_PROBE_FLOWS_MAP "probe_flows"      // LRU hash, sluice_probe_flow -> __u64 until
#define SLUICE_PROBE_STATS_MAP "probe_stats"

// A probe's socket carries the number of its target as its mark: the first mark and those
// that follow. They are on packets between the two ends of the pair only.
#define SLUICE_PROBE_FIRST_MARK 0x53000000u
#define SLUICE_PROBE_MARKS 0x01000000u
#define SLUICE_MAX_PROBE_TARGETS 65536u  // the loader changes it
#define SLUICE_MAX_PROBE_FLOWS 32768u    // probes whose replies are known

struct sluice_probe_target {
  __u8 vip[16];
  __u8 source[16];        // of this host: where the backend's reply goes; the VIP's family
  __u8 backend[16];       // the tunnel's far end; dsr-dscp: the destination
  __u8 outer_source[16];  // of the backend's family
  __u8 via[16];           // next hop, whose MAC address the kernel finds; all zero: next_hop
  __u8 next_hop[6];       // MAC address
  __u8 out_mac[6];        // of the interface
  __u32 out_ifindex;      // 0: not known
  __u8 mode;              // abi::forward_mode
  __u8 dscp;              // dsr-dscp
  __u16 gue_port;         // network order
  __u32 timeout_ms;       // of a probe that is no TCP connection, and has no end to be seen
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_probe_target) == 104, "no hidden padding");

// sluice_probe_flow: a reply to a probe, in network order. Of an echo reply source_port is 0 and
// destination_port its identifier.
struct sluice_probe_flow {
  __u8 source[16];
  __u8 destination[16];
  __u16 source_port;
  __u16 destination_port;
  __u8 protocol;
  __u8 pad[3];  // 0
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_probe_flow) == 40, "no hidden padding");

// The pair of interfaces. Sockets are bound to the near end, and know the backend as `peer`.
struct sluice_probe_config {
  __u32 ifindex;  // of the near end
  __u8 mac[6];    // the near end's
  __u16 pad;      // 0
  __u8 local4[4];
  __u8 peer4[4];
  __u8 local6[16];
  __u8 peer6[16];
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_probe_config) == 52, "no hidden padding");

// Indices of probe_stats, a per-CPU array of __u64. Every packet of a probe counts once.
enum sluice_probe_counter {
  SLUICE_PROBE_SENT,
  SLUICE_PROBE_REPLY,    // handed to the near end
  SLUICE_PROBE_NO_PATH,  // dropped: not of a probe, or its way is not known
  SLUICE_PROBE_FAILED,   // dropped: of no kind of probe, or the kernel refused a rewrite
  SLUICE_PROBE_COUNTERS
};
