// SPDX-License-Identifier: Apache-2.0
// What the BPF programs share with both planes: map names, keys, values, limits.
// Plain C that also compiles as C++20; kernel types only. Addresses are 16 bytes in
// network order, IPv4 as ::ffff:a.b.c.d (ip_address in net_types.hpp has the same bytes).
#pragma once

#include <linux/types.h>

#ifdef __cplusplus
#define SLUICE_ABI_ASSERT(cond, text) static_assert(cond, text)
#else
#define SLUICE_ABI_ASSERT(cond, text) _Static_assert(cond, text)
#endif

// ---- steer.bpf.c: VIP packets to AF_XDP, everything else to the kernel ----

// The kernel cuts program names at 15 characters. A program of this name with a map
// of that name is ours, whoever loaded it.
#define SLUICE_STEER_PROGRAM "sluice_steer"
#define SLUICE_XSKS_MAP "xsks_map"  // filled by DPDK's AF_XDP PMD; the name is its own
#define SLUICE_VIP_SET_MAP "vip_set"
#define SLUICE_STEER_STATS_MAP "steer_stats"
#define SLUICE_STEER_CONFIG_MAP "steer_config"    // array, 1 entry of sluice_steer_config
#define SLUICE_NAT_SOURCES_MAP "nat_sources"      // as vip_set, of nat backends
#define SLUICE_HOST_SET_MAP "host_set"            // hash, sluice_address -> __u32: the host's own
#define SLUICE_ENCAP_SOURCES_MAP "encap_sources"  // LPM trie, sluice_prefix -> __u32

#define SLUICE_MAX_XSKS 256           // RX queues of one interface
#define SLUICE_MAX_VIP_ENTRIES 65536  // entries of vip_set
#define SLUICE_MAX_HOST_ADDRESSES 4096
#define SLUICE_MAX_ENCAP_SOURCES 16
#define SLUICE_VIP_RANGES 8  // port ranges of one (address, protocol)
#define SLUICE_MAX_VLAN_TAGS 2
#define SLUICE_MAX_IPV6_HEADERS 8  // extension headers walked

// Key of vip_set. Three kinds of entry:
//   (address, port, protocol)  a service on one port; the value's ranges are unused
//   (address, 0, protocol)     services on port ranges, listed in the value
//   (address, 0, 0)            this address has services: where to send fragments
//                              that carry no ports, pings and ICMP errors
// Addresses that full-nat takes as sources are in it with all ports: replies go there.
// nat_sources has the same keys and values for what nat backends answer from: address and
// port of the backend, which are the source of the reply.
struct sluice_vip_key {
  __u8 address[16];
  __u16 port;  // network order
  __u8 protocol;
  __u8 pad;  // 0
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_vip_key) == 20, "vip_set key has no hidden padding");

// Inclusive, host order.
struct sluice_port_range {
  __u16 first;
  __u16 last;
};

struct sluice_vip_value {
  __u32 ranges;  // how many of range[] are used
  struct sluice_port_range range[SLUICE_VIP_RANGES];
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_vip_value) == 36, "vip_set value has no hidden padding");

#define SLUICE_STEER_NAT 1u  // nat_sources is not empty

#define SLUICE_GUE_PORT 6080  // where the tables name none

struct sluice_steer_config {
  __u32 flags;
  __u16 gue_port;  // network order; 0: no gue
  __u16 pad;       // 0
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_steer_config) == 8, "no hidden padding");

struct sluice_address {
  __u8 bytes[16];
};

struct sluice_prefix {
  __u32 length;  // bits, host order; an IPv4 prefix /n is 96 + n
  __u8 bytes[16];
};

// Indices of steer_stats, a per-CPU array of __u64. Every packet counts once.
enum sluice_steer_counter {
  SLUICE_STEER_REDIRECTED,  // for a VIP, handed to an AF_XDP socket
  SLUICE_STEER_NO_SOCKET,   // for a VIP, but no data plane serves this queue: to the kernel
  SLUICE_STEER_PASSED,      // not for a VIP: to the kernel
  SLUICE_STEER_MALFORMED,   // headers truncated or not understood: to the kernel
  // No data plane serves the queue, and the stand-in decided (bpf/standin.h):
  SLUICE_STANDIN_FORWARDED,  // to the backend that the hash names
  SLUICE_STANDIN_PINNED,     // to the one where the connection table had it
// Dropped: SLUICE_STANDIN_NO_BACKEND and so on.
#define SLUICE_STANDIN_DROP(id, name, text) SLUICE_STANDIN_##id,
#include "dataplane/abi/standin_drops.def"
  SLUICE_STEER_COUNTERS
};
#define SLUICE_STANDIN_FIRST_DROP SLUICE_STANDIN_NO_BACKEND

// ---- decap.bpf.c: decapsulation (ipip, gue, gre) and L3DSR on backends ----

#define SLUICE_DECAP_PROGRAM "sluice_decap"
#define SLUICE_DECAP_CONFIG_MAP "decap_config"  // array, 1 entry of sluice_decap_config
#define SLUICE_DECAP_LOCAL_MAP "decap_local"    // hash, sluice_address -> __u32: outer destinations
#define SLUICE_DECAP_SOURCES_MAP "decap_sources"  // LPM trie, sluice_prefix -> __u32: outer sources
#define SLUICE_DECAP_VIPS_MAP "decap_vips"  // hash, sluice_address -> __u32: inner destinations
#define SLUICE_DECAP_DSCP_MAP "decap_dscp"  // array of sluice_address: the VIP of a DSCP
#define SLUICE_DECAP_STATS_MAP "decap_stats"

#define SLUICE_MAX_DECAP_ADDRESSES 1024
#define SLUICE_MAX_DECAP_PREFIXES 1024
// Index of decap_dscp: the DSCP for IPv4, 64 more for IPv6. All zero: no VIP.
#define SLUICE_DECAP_DSCP_ENTRIES 128
#define SLUICE_DECAP_DSCP_IPV6 64

#define SLUICE_DECAP_CHECK_SOURCE 1u  // the outer source must be in decap_sources
#define SLUICE_DECAP_CHECK_VIP 2u     // the inner destination must be in decap_vips

struct sluice_decap_config {
  __u32 flags;
  __u16 gue_port;  // UDP port of gue, network order; 0: UDP is not looked at
  __u16 reserved;
};
SLUICE_ABI_ASSERT(sizeof(struct sluice_decap_config) == 8, "decap_config has no hidden padding");

// Indices of decap_stats, a per-CPU array of __u64. Every packet counts once.
enum sluice_decap_counter {
  SLUICE_DECAP_4IN4,  // decapsulated and handed to the local stack
  SLUICE_DECAP_6IN4,
  SLUICE_DECAP_4IN6,
  SLUICE_DECAP_6IN6,
  SLUICE_DECAP_PASSED,      // no tunnel packet, or not to a local tunnel address
  SLUICE_DECAP_FRAGMENT,    // a fragment of a tunnel packet: left to the kernel
  SLUICE_DECAP_BAD_SOURCE,  // dropped: the outer source is not allowed
  SLUICE_DECAP_BAD_VIP,     // dropped: the inner destination is not a VIP of ours
  SLUICE_DECAP_MALFORMED,   // dropped: truncated, bad length, version or checksum
  SLUICE_DECAP_BAD_ECN,     // dropped: congestion marked on a flow without ECN (RFC 6040)
  SLUICE_DECAP_FAILED,      // dropped: the kernel refused to move the packet's head
  SLUICE_DECAP_RESTORED,    // dsr-dscp: the VIP put back, and handed to the local stack
  SLUICE_DECAP_COUNTERS
};
