// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// XDP on a backend: takes the outer header off tunnel packets, and hands the inner packet
// to the host's own stack, which needs no ipip, ip6_tunnel, fou or gre module. Tunnels:
// IP-in-IP (4in4, 6in4, 4in6, 6in6; RFC 2003, RFC 4213, RFC 2473), GRE without checksum and
// key (RFC 2784), GUE variant 1 (IP directly in UDP) on a port that decap_config names. An
// outer UDP checksum is not looked at: the balancer sends none, the inner packet has its own.
// For dsr-dscp (L3DSR) there is nothing to take off: the VIP that decap_dscp has for the
// packet's DSCP becomes the destination again.
//
// Only packets to an address in decap_local are touched; decap_config says what else is
// demanded, so that the host is no open decapsulator. Attached and filled by
// tools/backend-setup.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/cursor.h"
#include "dataplane/abi/bpf_abi.h"

#define ECN_MASK 3  // RFC 3168 section 5
#define ECN_CE 3
#define MAX_OUTER_EXTENSIONS 2  // RFC 2473 section 4.1.1: a tunnel encapsulation limit

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_decap_config);
} decap_config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_DECAP_ADDRESSES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_address);
  __type(value, __u32);
} decap_local SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, SLUICE_MAX_DECAP_PREFIXES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_prefix);
  __type(value, __u32);
} decap_sources SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_DECAP_ADDRESSES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_address);
  __type(value, __u32);
} decap_vips SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SLUICE_DECAP_DSCP_ENTRIES);
  __type(key, __u32);
  __type(value, struct sluice_address);
} decap_dscp SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, SLUICE_DECAP_COUNTERS);
  __type(key, __u32);
  __type(value, __u64);
} decap_stats SEC(".maps");

// The outer header, once it is known to be a whole tunnel packet to this host.
struct tunnel {
  struct sluice_prefix source;
  struct sluice_address destination;
  __u32 header;   // bytes from the outer IP header to the inner one
  __u32 payload;  // bytes that the outer header says follow
  __u8 protocol;  // IPPROTO_IPIP or IPPROTO_IPV6: what is inside
  __u8 ecn;
  __u8 dscp;
  __u8 outer_is_ipv6;
  __u8 fragment;
};

enum parse_result { PARSED, NOT_A_TUNNEL, BROKEN };

static __always_inline int count(__u32 counter, int verdict) {
  __u64* value = bpf_map_lookup_elem(&decap_stats, &counter);
  if (value) ++*value;
  return verdict;
}

static __always_inline __u32 add_words(const __u16* words, int n, __u32 sum) {
#pragma unroll
  for (int i = 0; i < n; ++i) sum += words[i];
  return sum;
}

static __always_inline __u16 fold(__u32 sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)sum;
}

struct gre_header {
  __be16 flags;
  __be16 type;
};

struct udp_header {
  __be16 source;
  __be16 destination;
  __be16 length;
  __be16 checksum;
};

// parse_between() steps over what gue and gre have behind the outer header, and sets
// t->protocol to what is inside. Anything that is not just so is somebody else's.
static __always_inline enum parse_result parse_between(struct cursor* c, struct tunnel* t,
                                                       __be16 gue_port) {
  if (t->protocol == IPPROTO_IPIP || t->protocol == IPPROTO_IPV6) return PARSED;
  __u32 size;
  if (t->protocol == IPPROTO_GRE) {
    if (t->fragment) return PARSED;
    const struct gre_header* gre = cursor_take(c, sizeof(*gre));
    if (!gre || gre->flags) return NOT_A_TUNNEL;
    if (gre->type == bpf_htons(ETH_P_IP))
      t->protocol = IPPROTO_IPIP;
    else if (gre->type == bpf_htons(ETH_P_IPV6))
      t->protocol = IPPROTO_IPV6;
    else
      return NOT_A_TUNNEL;
    size = sizeof(*gre);
  } else {
    if (t->protocol != IPPROTO_UDP || !gue_port || t->fragment) return NOT_A_TUNNEL;
    const struct udp_header* udp = cursor_take(c, sizeof(*udp));
    if (!udp || udp->destination != gue_port) return NOT_A_TUNNEL;
    struct cursor inside = *c;
    const __u8* first = cursor_take(&inside, 1);
    if (!first) return NOT_A_TUNNEL;
    if (*first >> 4 == 4)
      t->protocol = IPPROTO_IPIP;
    else if (*first >> 4 == 6)
      t->protocol = IPPROTO_IPV6;
    else
      return NOT_A_TUNNEL;  // variant 0
    size = sizeof(*udp);
    const __u32 length = bpf_ntohs(udp->length);
    if (length < size || length > t->payload) return BROKEN;
  }
  if (t->payload < size) return BROKEN;
  t->header += size;
  t->payload -= size;
  return PARSED;
}

static __always_inline int is_tunnel(__u8 protocol) {
  return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE ||
         protocol == IPPROTO_UDP;
}

// broken() is for a header that is wrong: what need not be a tunnel is the kernel's to judge.
static __always_inline enum parse_result broken(__u8 protocol) {
  return protocol == IPPROTO_UDP || protocol == IPPROTO_GRE ? NOT_A_TUNNEL : BROKEN;
}

// parse_ipv4() checks what the kernel would have checked, had it seen the outer header.
static __always_inline enum parse_result parse_ipv4(struct cursor* c, struct tunnel* t) {
  const void* start = c->position;
  const struct iphdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip) return NOT_A_TUNNEL;
  t->dscp = ip->tos >> 2;
  map_ipv4(t->destination.bytes, ip->daddr);
  if (!is_tunnel(ip->protocol)) return NOT_A_TUNNEL;
  t->protocol = ip->protocol;
  t->ecn = ip->tos & ECN_MASK;
  t->fragment = (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)) != 0;
  map_ipv4(t->source.bytes, ip->saddr);
  if (ip->version != 4 || ip->ihl < 5) return broken(t->protocol);

  const __u32 header = ip->ihl * 4u;
  const __u32 total = bpf_ntohs(ip->tot_len);
  const __u32 frame = (__u32)(c->end - start);
  __u32 sum = add_words((const __u16*)ip, sizeof(*ip) / 2, 0);
  for (__u32 at = sizeof(*ip); at < 60; at += 4) {  // options: no meaning here, but summed
    if (at >= header) break;
    const __u16* option = cursor_take(c, 4);
    if (!option) return broken(t->protocol);
    sum = add_words(option, 2, sum);
  }
  if (fold(sum) != 0xffff || total < header || total > frame) return broken(t->protocol);
  t->header = header;
  t->payload = total - header;
  return PARSED;
}

static __always_inline enum parse_result parse_ipv6(struct cursor* c, struct tunnel* t) {
  const struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
  if (!ip || ip->version != 6) return NOT_A_TUNNEL;
  __builtin_memcpy(t->destination.bytes, &ip->daddr, sizeof(ip->daddr));
  __builtin_memcpy(t->source.bytes, &ip->saddr, sizeof(ip->saddr));
  t->outer_is_ipv6 = 1;
  t->ecn = (ip->flow_lbl[0] >> 4) & ECN_MASK;
  t->dscp = (__u8)((ip->priority << 4 | ip->flow_lbl[0] >> 4) >> 2);
  const __u32 payload = bpf_ntohs(ip->payload_len);
  const void* after = c->position;
  const __u32 frame = (__u32)(c->end - after);

  __u32 extensions = 0;
  __u8 next = ip->nexthdr;
#pragma unroll
  for (int i = 0; i < MAX_OUTER_EXTENSIONS; ++i) {
    if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS) break;
    const struct ipv6_extension* extension = cursor_take(c, sizeof(*extension));
    if (!extension) return NOT_A_TUNNEL;
    const __u32 rest = extension->length * 8u;
    next = extension->next;
    if (!cursor_skip(c, rest)) return NOT_A_TUNNEL;
    extensions += sizeof(*extension) + rest;
  }
  if (next == IPPROTO_FRAGMENT) {
    const struct ipv6_fragment* fragment = cursor_take(c, sizeof(*fragment));
    if (!fragment) return NOT_A_TUNNEL;
    next = fragment->next;
    extensions += sizeof(*fragment);
    // An atomic fragment (RFC 6946) is a whole packet.
    t->fragment = (fragment->offset & bpf_htons(IPV6_FRAGMENT_OFFSET | IPV6_MORE_FRAGMENTS)) != 0;
  }
  if (!is_tunnel(next)) return NOT_A_TUNNEL;
  t->protocol = next;
  if (payload > frame || payload < extensions) return broken(next);
  t->header = sizeof(*ip) + extensions;
  t->payload = payload - extensions;
  return PARSED;
}

// merge_ecn() carries congestion marked on the outer header over (RFC 6040 section
// 4.2). Returns 0 when the packet has to be dropped: marked, although its sender
// never said that it understands marks.
static __always_inline int merge_ecn_ipv4(struct iphdr* ip) {
  if (!(ip->tos & ECN_MASK)) return 0;
  const __u8 before = ip->tos;
  ip->tos |= ECN_CE;
  // RFC 1624 section 3, eqn. 3; tos is the second byte of its word.
  const __u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(before) + bpf_htons(ip->tos);
  ip->check = (__u16)~fold(sum);
  return 1;
}

static __always_inline int merge_ecn_ipv6(struct ipv6hdr* ip) {
  if (!(ip->flow_lbl[0] & (ECN_MASK << 4))) return 0;
  ip->flow_lbl[0] |= ECN_CE << 4;
  return 1;
}

// check_inner() returns the counter of what is wrong with the inner packet, or of the
// kind of tunnel when it may pass. Its checksums are verified by the kernel afterwards.
static __always_inline __u32 check_inner(struct cursor* c, const struct tunnel* t, __u32 flags) {
  struct sluice_address inner = {};
  __u32 length;
  int ecn_ok = 1;
  if (t->protocol == IPPROTO_IPIP) {
    struct iphdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip || ip->version != 4 || ip->ihl < 5) return SLUICE_DECAP_MALFORMED;
    length = bpf_ntohs(ip->tot_len);
    if (length < ip->ihl * 4u) return SLUICE_DECAP_MALFORMED;
    map_ipv4(inner.bytes, ip->daddr);
    if (t->ecn == ECN_CE) ecn_ok = merge_ecn_ipv4(ip);
  } else {
    struct ipv6hdr* ip = cursor_take(c, sizeof(*ip));
    if (!ip || ip->version != 6) return SLUICE_DECAP_MALFORMED;
    length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
    __builtin_memcpy(inner.bytes, &ip->daddr, sizeof(ip->daddr));
    if (t->ecn == ECN_CE) ecn_ok = merge_ecn_ipv6(ip);
  }
  if (length > t->payload) return SLUICE_DECAP_MALFORMED;
  if ((flags & SLUICE_DECAP_CHECK_VIP) && !bpf_map_lookup_elem(&decap_vips, &inner))
    return SLUICE_DECAP_BAD_VIP;
  if (!ecn_ok) return SLUICE_DECAP_BAD_ECN;
  if (t->outer_is_ipv6) return t->protocol == IPPROTO_IPIP ? SLUICE_DECAP_4IN6 : SLUICE_DECAP_6IN6;
  return t->protocol == IPPROTO_IPIP ? SLUICE_DECAP_4IN4 : SLUICE_DECAP_6IN4;
}

// move_link_header() cuts `header` bytes out between the link header and what follows,
// and writes the new ethertype, which is its last two bytes. link must be a constant.
static __always_inline int move_link_header(struct xdp_md* ctx, __u32 link, __u32 header,
                                            __be16 type) {
  __u8 saved[sizeof(struct ethhdr) + SLUICE_MAX_VLAN_TAGS * sizeof(struct vlan_tag)];
  struct cursor c = cursor_of(ctx);
  const void* from = cursor_take(&c, link);
  if (!from) return 0;
  __builtin_memcpy(saved, from, link);
  __builtin_memcpy(saved + link - sizeof(type), &type, sizeof(type));
  if (bpf_xdp_adjust_head(ctx, (int)header) != 0) return 0;
  c = cursor_of(ctx);
  void* to = cursor_take(&c, link);
  if (!to) return 0;
  __builtin_memcpy(to, saved, link);
  return 1;
}

static __always_inline int take_off(struct xdp_md* ctx, __u32 link, __u32 header, __be16 type) {
  switch (link) {
    case sizeof(struct ethhdr):
      return move_link_header(ctx, sizeof(struct ethhdr), header, type);
    case sizeof(struct ethhdr) + sizeof(struct vlan_tag):
      return move_link_header(ctx, sizeof(struct ethhdr) + sizeof(struct vlan_tag), header, type);
    default:
      return move_link_header(ctx, sizeof(struct ethhdr) + 2 * sizeof(struct vlan_tag), header,
                              type);
  }
}

// patch() puts the change of an address into a checksum (RFC 1624 section 3, eqn. 3).
static __always_inline void patch(__u16* check, const __u16* before, const __u16* after, int n) {
  __u32 sum = (__u16) ~*check;
#pragma unroll
  for (int i = 0; i < n; ++i) sum += (__u16)~before[i] + (__u32)after[i];
  *check = (__u16)~fold(sum);
}

static __always_inline int patch_l4(struct cursor* c, __u8 protocol, const __u16* before,
                                    const __u16* after, int n) {
  if (protocol == IPPROTO_TCP) {
    __u8* tcp = cursor_take(c, 20);
    if (!tcp) return 0;
    patch((__u16*)(tcp + 16), before, after, n);
  } else if (protocol == IPPROTO_UDP) {
    struct udp_header* udp = cursor_take(c, sizeof(*udp));
    if (!udp) return 0;
    if (!udp->checksum) return 1;
    patch(&udp->checksum, before, after, n);
    if (!udp->checksum) udp->checksum = 0xffff;
  } else {
    return 0;
  }
  return 1;
}

// restore_*() put the VIP back as the destination: of TCP and UDP only, so that pings of the
// backend's own address go on whatever their DSCP. 0: not ours, and unchanged. The transport
// checksum goes first: it is what may be missing. A fragment behind the first has none.
static __always_inline int restore_ipv4(struct xdp_md* ctx, const struct sluice_address* vip) {
  struct cursor c = cursor_of(ctx);
  cursor_take_ethernet(&c);
  struct iphdr* ip = cursor_take(&c, sizeof(*ip));
  if (!ip || ip->version != 4 || ip->ihl < 5) return 0;
  __u16 before[2], after[2];
  __builtin_memcpy(before, &ip->daddr, 4);
  __builtin_memcpy(after, vip->bytes + 12, 4);
  if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) {
    if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP) return 0;
  } else {
    if (!cursor_skip(&c, ip->ihl * 4u - sizeof(*ip))) return 0;
    if (!patch_l4(&c, ip->protocol, before, after, 2)) return 0;
  }
  patch(&ip->check, before, after, 2);
  __builtin_memcpy(&ip->daddr, after, 4);
  return 1;
}

static __always_inline int restore_ipv6(struct xdp_md* ctx, const struct sluice_address* vip) {
  struct cursor c = cursor_of(ctx);
  cursor_take_ethernet(&c);
  struct ipv6hdr* ip = cursor_take(&c, sizeof(*ip));
  if (!ip) return 0;
  __u8 next = ip->nexthdr;
  int later = 0;
#pragma unroll
  for (int i = 0; i < MAX_OUTER_EXTENSIONS; ++i) {
    if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS) break;
    const struct ipv6_extension* extension = cursor_take(&c, sizeof(*extension));
    if (!extension) return 0;
    next = extension->next;
    if (!cursor_skip(&c, extension->length * 8u)) return 0;
  }
  if (next == IPPROTO_FRAGMENT) {
    const struct ipv6_fragment* fragment = cursor_take(&c, sizeof(*fragment));
    if (!fragment) return 0;
    next = fragment->next;
    later = (fragment->offset & bpf_htons(IPV6_FRAGMENT_OFFSET)) != 0;
  }
  __u16 before[8], after[8];
  __builtin_memcpy(before, &ip->daddr, 16);
  __builtin_memcpy(after, vip->bytes, 16);
  if (later ? next != IPPROTO_TCP && next != IPPROTO_UDP : !patch_l4(&c, next, before, after, 8))
    return 0;
  __builtin_memcpy(&ip->daddr, after, 16);
  return 1;
}

// restore() is for what is no tunnel packet: dsr-dscp, if its DSCP stands for a VIP.
static __always_inline int restore(struct xdp_md* ctx, __be16 type, __u8 dscp) {
  const int is_ipv4 = type == bpf_htons(ETH_P_IP);
  const __u32 index = is_ipv4 ? dscp : dscp + SLUICE_DECAP_DSCP_IPV6;
  const struct sluice_address* vip = bpf_map_lookup_elem(&decap_dscp, &index);
  if (!vip) return 0;
  __u64 halves[2];
  __builtin_memcpy(halves, vip->bytes, sizeof(halves));
  if (!(halves[0] | halves[1])) return 0;
  return is_ipv4 ? restore_ipv4(ctx, vip) : restore_ipv6(ctx, vip);
}

SEC("xdp")
int sluice_decap(struct xdp_md* ctx) {
  struct tunnel t = {};
  struct cursor c = cursor_of(ctx);
  const void* start = c.position;
  const __be16 type = cursor_take_ethernet(&c);
  enum parse_result parsed = NOT_A_TUNNEL;
  const __u32 link = (__u32)(c.position - start);
  if (type == bpf_htons(ETH_P_IP)) {
    t.source.length = 128;
    parsed = parse_ipv4(&c, &t);
  } else if (type == bpf_htons(ETH_P_IPV6)) {
    t.source.length = 128;
    parsed = parse_ipv6(&c, &t);
  }
  if (!t.source.length || !bpf_map_lookup_elem(&decap_local, &t.destination))
    return count(SLUICE_DECAP_PASSED, XDP_PASS);
  const __u32 zero = 0;
  const struct sluice_decap_config* config = bpf_map_lookup_elem(&decap_config, &zero);
  const __u32 flags = config ? config->flags : 0;
  if (parsed == PARSED) parsed = parse_between(&c, &t, config ? config->gue_port : 0);
  if (parsed == NOT_A_TUNNEL) {
    if (t.dscp && restore(ctx, type, t.dscp)) return count(SLUICE_DECAP_RESTORED, XDP_PASS);
    return count(SLUICE_DECAP_PASSED, XDP_PASS);
  }
  if (parsed == BROKEN) return count(SLUICE_DECAP_MALFORMED, XDP_DROP);

  if ((flags & SLUICE_DECAP_CHECK_SOURCE) && !bpf_map_lookup_elem(&decap_sources, &t.source))
    return count(SLUICE_DECAP_BAD_SOURCE, XDP_DROP);
  if (t.fragment) return count(SLUICE_DECAP_FRAGMENT, XDP_PASS);

  const __u32 kind = check_inner(&c, &t, flags);
  if (kind > SLUICE_DECAP_6IN6) return count(kind, XDP_DROP);
  const __be16 inner_type = bpf_htons(t.protocol == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);
  if (!take_off(ctx, link, t.header, inner_type)) return count(SLUICE_DECAP_FAILED, XDP_DROP);
  return count(kind, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
