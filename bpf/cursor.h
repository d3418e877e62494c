// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A cursor over the packet of an XDP program: every header is taken through
// cursor_take(), which never hands out a byte beyond the end.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "dataplane/abi/bpf_abi.h"

#define IPV4_FRAGMENT_OFFSET 0x1fff  // RFC 791 section 3.1, host order
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV6_FRAGMENT_OFFSET 0xfff8  // RFC 8200 section 4.5, host order
#define IPV6_MORE_FRAGMENTS 0x0001

struct vlan_tag {
  __be16 tci;
  __be16 type;
};

struct ports {  // the common start of TCP and UDP
  __be16 source;
  __be16 destination;
};

struct ipv6_extension {  // hop-by-hop, routing, destination options; the start of AH
  __u8 next;
  __u8 length;  // without the first 8 bytes, in units of 8; of 4 in AH
  __u8 content[6];
};

struct ipv6_fragment {
  __u8 next;
  __u8 reserved;
  __be16 offset;
  __be32 id;
};

// RFC 792, RFC 4443. The kernel's own headers for it do not compile beside each other.
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_TOO_BIG 4  // its code
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_FIRST_ERROR 1  // destination unreachable, packet too big, time exceeded,
#define ICMPV6_LAST_ERROR 4   // parameter problem
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129

struct icmp_header {
  __u8 type;
  __u8 code;
  __be16 checksum;
  __be32 rest;
};

struct cursor {
  void* position;
  void* end;
};

static __always_inline struct cursor cursor_of(const struct xdp_md* ctx) {
  return (struct cursor){(void*)(long)ctx->data, (void*)(long)ctx->data_end};
}

// cursor_take() returns the next `size` bytes and steps over them, or 0 when the
// packet is shorter. size must be a constant.
static __always_inline void* cursor_take(struct cursor* c, __u32 size) {
  void* taken = c->position;
  if (taken + size > c->end) return 0;
  c->position = taken + size;
  return taken;
}

// cursor_skip() steps over a number of bytes read from the packet, at most 2047;
// returns 0 when the packet is shorter. The mask is for the verifier; the barrier keeps
// the compiler, which knows the bound already, from removing it.
static __always_inline int cursor_skip(struct cursor* c, __u64 size) {
  asm volatile("" : "+r"(size));
  size &= 0x7ff;
  if (c->position + size > c->end) return 0;
  c->position += size;
  return 1;
}

static __always_inline int is_vlan(__be16 type) {
  return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

// cursor_take_ethernet() steps over Ethernet and up to SLUICE_MAX_VLAN_TAGS tags;
// returns the ethertype in network order, 0 when truncated.
static __always_inline __be16 cursor_take_ethernet(struct cursor* c) {
  const struct ethhdr* ethernet = cursor_take(c, sizeof(*ethernet));
  if (!ethernet) return 0;
  __be16 type = ethernet->h_proto;
#pragma unroll
  for (int i = 0; i < SLUICE_MAX_VLAN_TAGS; ++i) {
    if (!is_vlan(type)) break;
    const struct vlan_tag* tag = cursor_take(c, sizeof(*tag));
    if (!tag) return 0;
    type = tag->type;
  }
  return type;
}

// map_ipv4() writes an IPv4 address (network order) as ::ffff:a.b.c.d. to must be zeroed.
static __always_inline void map_ipv4(__u8* to, __be32 address) {
  to[10] = to[11] = 0xff;
  __builtin_memcpy(to + 12, &address, sizeof(address));
}
