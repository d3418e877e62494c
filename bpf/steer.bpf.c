// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// XDP: packets for a VIP go to the AF_XDP socket of their RX queue, all others to the
// kernel. Nothing is dropped here: what cannot be understood is the kernel's to judge.
// Loaded by DPDK's AF_XDP PMD (argument xdp_prog=), which fills xsks_map; vip_set is
// kept by the control plane (controlplane/bpf_loader), which finds it by the interface.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/cursor.h"
#include "dataplane/abi/bpf_abi.h"

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, SLUICE_MAX_XSKS);
  __type(key, __u32);
  __type(value, __u32);
} xsks_map SEC(".maps");

// Not preallocated: room for 65536 entries costs nothing until they are there.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_VIP_ENTRIES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_vip_key);
  __type(value, struct sluice_vip_value);
} vip_set SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, SLUICE_STEER_COUNTERS);
  __type(key, __u32);
  __type(value, __u64);
} steer_stats SEC(".maps");

static __always_inline int count(__u32 counter, int verdict) {
  __u64* value = bpf_map_lookup_elem(&steer_stats, &counter);
  if (value) ++*value;
  return verdict;
}

static __always_inline int to_kernel(void) {
  return count(SLUICE_STEER_PASSED, XDP_PASS);
}
static __always_inline int malformed(void) {
  return count(SLUICE_STEER_MALFORMED, XDP_PASS);
}

// With no socket in the map (the data plane is not there) the flags are the verdict:
// XDP_PASS. This is where the stateless stand-in hooks in.
static __always_inline int to_data_plane(struct xdp_md* ctx) {
  const long verdict = bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
  return count(verdict == XDP_REDIRECT ? SLUICE_STEER_REDIRECTED : SLUICE_STEER_NO_SOCKET,
               (int)verdict);
}

// key holds address and protocol. A fragment without ports follows the address.
static __always_inline int steer_fragment(struct xdp_md* ctx, struct sluice_vip_key* key) {
  key->port = 0;
  key->protocol = 0;
  return bpf_map_lookup_elem(&vip_set, key) ? to_data_plane(ctx) : to_kernel();
}

// ICMP errors about balanced connections and echo to a VIP are the kernel's for now;
// the lookup by the quoted packet belongs here.
static __always_inline int steer_icmp(struct xdp_md* ctx, struct cursor* c,
                                      struct sluice_vip_key* key) {
  (void)ctx, (void)c, (void)key;
  return to_kernel();
}

static __always_inline int in_ranges(const struct sluice_vip_value* value, __u16 port) {
#pragma unroll
  for (__u32 i = 0; i < SLUICE_VIP_RANGES; ++i)
    if (i < value->ranges && port >= value->range[i].first && port <= value->range[i].last)
      return 1;
  return 0;
}

static __always_inline int steer_transport(struct xdp_md* ctx, struct cursor* c,
                                           struct sluice_vip_key* key) {
  if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6)
    return steer_icmp(ctx, c, key);
  if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP) return to_kernel();

  const struct ports* ports = cursor_take(c, sizeof(*ports));
  if (!ports) return malformed();
  const __u16 port = ports->destination;

  key->port = port;
  if (port && bpf_map_lookup_elem(&vip_set, key)) return to_data_plane(ctx);
  key->port = 0;
  const struct sluice_vip_value* value = bpf_map_lookup_elem(&vip_set, key);
  return value && in_ranges(value, bpf_ntohs(port)) ? to_data_plane(ctx) : to_kernel();
}

static __always_inline int steer_ipv4(struct xdp_md* ctx, struct cursor* c) {
  const struct iphdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip || ip->version != 4 || ip->ihl < 5) return malformed();

  struct sluice_vip_key key = {.protocol = ip->protocol};
  map_ipv4(key.address, ip->daddr);
  if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) return steer_fragment(ctx, &key);
  if (!cursor_skip(c, (ip->ihl - 5u) * 4u)) return malformed();
  return steer_transport(ctx, c, &key);
}

static __always_inline int steer_ipv6(struct xdp_md* ctx, struct cursor* c) {
  const struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip || ip->version != 6) return malformed();

  struct sluice_vip_key key = {};
  __builtin_memcpy(key.address, &ip->daddr, sizeof(key.address));
  __u8 next = ip->nexthdr;
#pragma unroll
  for (int i = 0; i <= SLUICE_MAX_IPV6_HEADERS; ++i) {
    if (next == IPPROTO_FRAGMENT) {
      const struct ipv6_fragment* fragment = cursor_take(c, sizeof(*fragment));
      if (!fragment) return malformed();
      if (fragment->offset & bpf_htons(IPV6_FRAGMENT_OFFSET)) return steer_fragment(ctx, &key);
      next = fragment->next;
    } else if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
      const struct ipv6_extension* extension = cursor_take(c, sizeof(*extension));
      if (!extension || !cursor_skip(c, extension->length * 8u)) return malformed();
      next = extension->next;
    } else {
      key.protocol = next;
      return steer_transport(ctx, c, &key);
    }
  }
  return malformed();  // more headers than anybody sends in good faith
}

SEC("xdp")
int sluice_steer(struct xdp_md* ctx) {
  struct cursor c = cursor_of(ctx);
  switch (cursor_take_ethernet(&c)) {
    case bpf_htons(ETH_P_IP):
      return steer_ipv4(ctx, &c);
    case bpf_htons(ETH_P_IPV6):
      return steer_ipv6(ctx, &c);
    case 0:
      return malformed();
    default:
      return to_kernel();
  }
}

char _license[] SEC("license") = "Dual BSD/GPL";
