// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// XDP: packets for a VIP go to the AF_XDP socket of their RX queue, all others to the
// kernel. What cannot be understood is the kernel's to judge. While no data plane is there
// the stand-in (bpf/standin.h) forwards. Attached by the data plane, and outlives it
// (dataplane/port/xdp_program.hpp); the maps are kept by the control plane
// (controlplane/bpf_loader), which finds them by the interface.
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
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_steer_config);
} steer_config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_VIP_ENTRIES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_vip_key);
  __type(value, struct sluice_vip_value);
} nat_sources SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_HOST_ADDRESSES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_address);
  __type(value, __u32);
} host_set SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, SLUICE_MAX_ENCAP_SOURCES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_prefix);
  __type(value, __u32);
} encap_sources SEC(".maps");

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

// packet: what steering looks at, as in the packet's own IP header.
struct packet {
  struct sluice_vip_key source;       // the port is set where there are ports
  struct sluice_vip_key destination;  // the same
  __u32 link;                         // bytes before the IP header
  __u32 v6;
};

#include "bpf/standin.h"

// data_plane_lives() tells whether a worker polls this queue: its socket is in the map (the
// kernel takes it out when the process ends) and its heartbeat is fresh (none was ever
// written: the program was loaded by somebody who has none).
static __always_inline int data_plane_lives(struct xdp_md* ctx) {
  const __u32 queue = ctx->rx_queue_index;
  if (!bpf_map_lookup_elem(&xsks_map, &queue)) return 0;
  const __u64* beat = bpf_map_lookup_elem(&heartbeat, &queue);
  if (!beat || *beat == 0) return 1;
  const __u64 last = *beat;
  return bpf_ktime_get_coarse_ns() < last + SLUICE_HEARTBEAT_STALE_NS;
}

static __always_inline const struct sluice_standin_config* standin_is_ready(void) {
  const __u32 zero = 0;
  const struct sluice_standin_config* config = bpf_map_lookup_elem(&standin_config, &zero);
  return config && config->ready ? config : 0;
}

static __always_inline int redirect(struct xdp_md* ctx) {
  const long verdict = bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
  return count(verdict == XDP_REDIRECT ? SLUICE_STEER_REDIRECTED : SLUICE_STEER_NO_SOCKET,
               (int)verdict);
}

// What only the data plane can forward: also a late one, as long as it is there. The kernel
// would answer a connection that it does not know with a reset.
static __always_inline int or_drop(struct xdp_md* ctx, __u32 reason) {
  const __u32 queue = ctx->rx_queue_index;
  if (bpf_map_lookup_elem(&xsks_map, &queue)) return redirect(ctx);
  return standin_is_ready() ? count(reason, XDP_DROP) : count(SLUICE_STEER_NO_SOCKET, XDP_PASS);
}

// A packet with ports to a service (or to an address of the NAT pool).
static __always_inline int to_data_plane(struct xdp_md* ctx, const struct packet* p) {
  if (data_plane_lives(ctx)) return redirect(ctx);
  const struct sluice_standin_config* config = standin_is_ready();
  const int verdict = config ? stand_in(ctx, p, config) : STANDIN_CANNOT;
  if (verdict != STANDIN_CANNOT) return verdict;
  return or_drop(ctx, SLUICE_STANDIN_MODE);
}

// What the kernel may have when the data plane is not there.
static __always_inline int or_kernel(struct xdp_md* ctx) {
  return data_plane_lives(ctx) ? redirect(ctx) : count(SLUICE_STEER_NO_SOCKET, XDP_PASS);
}

static __always_inline int in_ranges(const struct sluice_vip_value* value, __u16 port) {
#pragma unroll
  for (__u32 i = 0; i < SLUICE_VIP_RANGES; ++i)
    if (i < value->ranges && port >= value->range[i].first && port <= value->range[i].last)
      return 1;
  return 0;
}

// in_set() looks (address, port, protocol) up in vip_set or nat_sources.
static __always_inline int in_set(void* set, struct sluice_vip_key* key) {
  const __u16 port = key->port;
  if (port && bpf_map_lookup_elem(set, key)) return 1;
  key->port = 0;
  const struct sluice_vip_value* value = bpf_map_lookup_elem(set, key);
  key->port = port;
  return value && in_ranges(value, bpf_ntohs(port));
}

// address_in_set() asks whether the address has any entry.
static __always_inline int address_in_set(void* set, const struct sluice_vip_key* key) {
  struct sluice_vip_key marker = *key;
  marker.port = 0;
  marker.protocol = 0;
  return bpf_map_lookup_elem(set, &marker) != 0;
}

static __always_inline const struct sluice_steer_config* steer_options(void) {
  const __u32 zero = 0;
  return bpf_map_lookup_elem(&steer_config, &zero);
}

static __always_inline int nat_in_use(void) {
  const struct sluice_steer_config* config = steer_options();
  return config && (config->flags & SLUICE_STEER_NAT);
}

// The host's own conversations with a backend (health checks) are not replies to clients.
static __always_inline int to_host(const struct packet* p) {
  return bpf_map_lookup_elem(&host_set, p->destination.address) != 0;
}

// A fragment without ports follows the address.
static __always_inline int steer_fragment(struct xdp_md* ctx, struct packet* p) {
  if (address_in_set(&vip_set, &p->destination)) return or_drop(ctx, SLUICE_STANDIN_FRAGMENT);
  if (nat_in_use() && address_in_set(&nat_sources, &p->source) && !to_host(p))
    return or_drop(ctx, SLUICE_STANDIN_FRAGMENT);
  return to_kernel();
}

// is_our_tunnel() tells whether a packet that an ICMP error quotes is one that the data
// plane has encapsulated.
static __always_inline int is_our_tunnel(struct cursor* c, int v6) {
  struct sluice_prefix source = {.length = 128};
  __u8 protocol;
  if (v6) {
    const struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip) return 0;
    __builtin_memcpy(source.bytes, &ip->saddr, sizeof(source.bytes));
    protocol = ip->nexthdr;
  } else {
    const struct iphdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip || ip->ihl != 5) return 0;  // ours have no options
    map_ipv4(source.bytes, ip->saddr);
    protocol = ip->protocol;
  }
  if (!bpf_map_lookup_elem(&encap_sources, &source)) return 0;
  if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE) return 1;
  if (protocol != IPPROTO_UDP) return 0;
  const struct ports* ports = cursor_take(c, sizeof(*ports));
  const struct sluice_steer_config* config = steer_options();
  return ports && config && config->gue_port && ports->destination == config->gue_port;
}

// quotes_nat() tells whether a packet that an ICMP error quotes went to a `nat` backend.
static __always_inline int quotes_nat(struct cursor* c, int v6) {
  struct sluice_vip_key to = {};
  if (v6) {
    const struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip) return 0;
    __builtin_memcpy(to.address, &ip->daddr, sizeof(to.address));
    to.protocol = ip->nexthdr;
    if (to.protocol == IPPROTO_FRAGMENT) {
      const struct ipv6_fragment* fragment = cursor_take(c, sizeof(*fragment));
      if (!fragment) return 0;
      to.protocol = fragment->next;
    }
  } else {
    const struct iphdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip || ip->ihl < 5) return 0;
    const __u32 options = (ip->ihl - 5u) * 4u;
    map_ipv4(to.address, ip->daddr);
    to.protocol = ip->protocol;
    if (!cursor_skip(c, options)) return 0;
  }
  if (to.protocol != IPPROTO_TCP && to.protocol != IPPROTO_UDP) return 0;
  const struct ports* ports = cursor_take(c, sizeof(*ports));
  if (!ports) return 0;
  to.port = ports->destination;
  return in_set(&nat_sources, &to);
}

// Pings and errors to an address that has services are the data plane's, as are errors
// about its own tunnels, and those to clients about what went to `nat` backends. The rest is
// the kernel's: neighbour discovery, echo replies to the host, and everything else that is
// not answered or translated there.
static __always_inline int steer_icmp(struct xdp_md* ctx, struct cursor* c, struct packet* p,
                                      int v6) {
  const struct icmp_header* icmp = cursor_take(c, sizeof(*icmp));
  if (!icmp) return malformed();
  const __u8 type = icmp->type;
  const int error =
      v6 ? type >= ICMPV6_FIRST_ERROR && type <= ICMPV6_LAST_ERROR
         : type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
  const int echo = type == (v6 ? ICMPV6_ECHO : ICMP_ECHO);
  if (!error && !echo) return to_kernel();
  if (address_in_set(&vip_set, &p->destination)) return or_kernel(ctx);
  if (!error) return to_kernel();
  struct cursor quote = *c;
  if (is_our_tunnel(c, v6)) return or_kernel(ctx);
  return nat_in_use() && !to_host(p) && quotes_nat(&quote, v6) ? or_kernel(ctx) : to_kernel();
}

static __always_inline int steer_transport(struct xdp_md* ctx, struct cursor* c, struct packet* p) {
  const __u8 protocol = p->destination.protocol;
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) return to_kernel();
  const struct ports* ports = cursor_take(c, sizeof(*ports));
  if (!ports) return malformed();
  p->source.port = ports->source;
  p->destination.port = ports->destination;
  if (in_set(&vip_set, &p->destination)) return to_data_plane(ctx, p);
  if (nat_in_use() && in_set(&nat_sources, &p->source) && !to_host(p))
    return or_drop(ctx, SLUICE_STANDIN_MODE);
  return to_kernel();
}

static __always_inline int steer_ipv4(struct xdp_md* ctx, struct cursor* c, __u32 link) {
  const struct iphdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip || ip->version != 4 || ip->ihl < 5) return malformed();

  struct packet p = {
      .source.protocol = ip->protocol, .destination.protocol = ip->protocol, .link = link};
  map_ipv4(p.source.address, ip->saddr);
  map_ipv4(p.destination.address, ip->daddr);
  if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) return steer_fragment(ctx, &p);
  const __u8 protocol = ip->protocol;
  if (!cursor_skip(c, (ip->ihl - 5u) * 4u)) return malformed();
  return protocol == IPPROTO_ICMP ? steer_icmp(ctx, c, &p, 0) : steer_transport(ctx, c, &p);
}

static __always_inline int steer_ipv6(struct xdp_md* ctx, struct cursor* c, __u32 link) {
  const struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip || ip->version != 6) return malformed();

  struct packet p = {.link = link, .v6 = 1};
  __builtin_memcpy(p.source.address, &ip->saddr, sizeof(p.source.address));
  __builtin_memcpy(p.destination.address, &ip->daddr, sizeof(p.destination.address));
  // It would be looked up as the IPv4 address that it is not; nobody may send it (RFC 4291).
  if (is_mapped_v4(p.destination.address)) return malformed();
  __u8 next = ip->nexthdr;
#pragma unroll
  for (int i = 0; i <= SLUICE_MAX_IPV6_HEADERS; ++i) {
    if (next == IPPROTO_FRAGMENT) {
      const struct ipv6_fragment* fragment = cursor_take(c, sizeof(*fragment));
      if (!fragment) return malformed();
      if (fragment->offset & bpf_htons(IPV6_FRAGMENT_OFFSET)) return steer_fragment(ctx, &p);
      next = fragment->next;
    } else if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
               next == IPPROTO_AH) {
      const struct ipv6_extension* extension = cursor_take(c, sizeof(*extension));
      // An authentication header counts in units of four bytes (RFC 4302 section 2.2).
      const __u32 unit = next == IPPROTO_AH ? 4 : 8;
      if (!extension || !cursor_skip(c, extension->length * unit)) return malformed();
      next = extension->next;
    } else {
      p.source.protocol = p.destination.protocol = next;
      return next == IPPROTO_ICMPV6 ? steer_icmp(ctx, c, &p, 1) : steer_transport(ctx, c, &p);
    }
  }
  return malformed();  // more headers than anybody sends in good faith
}

SEC("xdp")
int sluice_steer(struct xdp_md* ctx) {
  struct cursor c = cursor_of(ctx);
  const void* start = c.position;
  const __be16 type = cursor_take_ethernet(&c);
  const __u32 link = (__u32)(c.position - start);
  switch (type) {
    case bpf_htons(ETH_P_IP):
      return steer_ipv4(ctx, &c, link);
    case bpf_htons(ETH_P_IPV6):
      return steer_ipv6(ctx, &c, link);
    case 0:
      return malformed();
    default:
      return to_kernel();
  }
}

char _license[] SEC("license") = "Dual BSD/GPL";
