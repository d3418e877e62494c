// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Outer headers as the data plane writes them (dataplane/packet/encapsulate.hpp says what and
// why), for the stand-in and for health checks.
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// abi::forward_mode, as far as it matters here.
#define MODE_DSR_L2 1
#define MODE_IPIP 2
#define MODE_GUE 3
#define MODE_GRE 4
#define MODE_DSR_DSCP 5

#define OUTER_TTL 64
#define MAX_OUTER 48  // IPv6 and UDP

static __always_inline __u64 word_at(const __u8* bytes) {
  __u64 w;
  __builtin_memcpy(&w, bytes, sizeof w);
  return w;
}
static __always_inline __u32 half_at(const __u8* bytes) {
  __u32 w;
  __builtin_memcpy(&w, bytes, sizeof w);
  return w;
}

static __always_inline int is_mapped_v4(const __u8* address) {
  return word_at(address) == 0 && half_at(address + 8) == bpf_htonl(0xffff);
}

static __always_inline void set_ipv4_checksum(struct iphdr* ip) {
  ip->check = 0;
  __u32 sum = 0;
  const __u16* words = (const __u16*)ip;
#pragma unroll
  for (int i = 0; i < 10; ++i) sum += words[i];
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  ip->check = (__u16)~sum;
}

// inner: the packet that is encapsulated.
struct inner {
  __u32 bytes;    // of the IP packet
  __u32 v6;       // 1: IPv6
  __u32 entropy;  // of the flow: for the source port of gue, and the flow label
  __u8 tos;
};

static __always_inline __u8 outer_protocol(__u32 mode, const struct inner* p) {
  return mode == MODE_GUE   ? IPPROTO_UDP
         : mode == MODE_GRE ? IPPROTO_GRE
         : p->v6            ? IPPROTO_IPV6
                            : IPPROTO_IPIP;
}

// make_shim() writes what is between the outer header and the inner packet. gue_port: network
// order.
static __always_inline void make_shim(__u8* to, __u32 mode, const struct inner* p,
                                      __be16 gue_port) {
  if (mode == MODE_GUE) {
    const __be16 words[4] = {bpf_htons(0xc000 | (p->entropy & 0x3fff)), gue_port,
                             bpf_htons(p->bytes + 8), 0};
    __builtin_memcpy(to, words, sizeof words);
  } else if (mode == MODE_GRE) {
    const __be16 words[2] = {0, bpf_htons(p->v6 ? ETH_P_IPV6 : ETH_P_IP)};
    __builtin_memcpy(to, words, sizeof words);
  }
}

// make_outer4(), make_outer6(): `shim` bytes come between. Backends' addresses are 16 bytes.
static __always_inline void make_outer4(__u8* to, __u32 mode, const struct inner* p, __u32 shim,
                                        __be32 source, const __u8* backend) {
  struct iphdr ip = {.version = 4,
                     .ihl = 5,
                     .tos = p->tos,
                     .tot_len = bpf_htons(p->bytes + shim + sizeof(struct iphdr)),
                     .frag_off = bpf_htons(0x4000),
                     .ttl = OUTER_TTL,
                     .protocol = outer_protocol(mode, p),
                     .saddr = source,
                     .daddr = half_at(backend + 12)};
  set_ipv4_checksum(&ip);
  __builtin_memcpy(to, &ip, sizeof ip);
}

static __always_inline void make_outer6(__u8* to, __u32 mode, const struct inner* p, __u32 shim,
                                        const __u8* source, const __u8* backend) {
  __u32 label = p->entropy & 0xfffff;
  if (label == 0) label = 1;
  const __be32 first = bpf_htonl(6u << 28 | (__u32)p->tos << 20 | label);
  const __be16 length = bpf_htons(p->bytes + shim);
  __builtin_memcpy(to, &first, 4);
  __builtin_memcpy(to + 4, &length, 2);
  to[6] = outer_protocol(mode, p);
  to[7] = OUTER_TTL;
  __builtin_memcpy(to + 8, source, 16);
  __builtin_memcpy(to + 24, backend, 16);
}
