// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// tc: health checks travel as traffic does. A probe's socket is bound to one end of a veth
// pair and connects to a peer that does not exist. `sluice_probe_tx`, where the other end
// receives, makes of its packets what the data plane would make of a client's: addressed to
// the VIP, encapsulated to the backend (the mark says which), out by the uplink.
// `sluice_probe_rx`, where the uplink receives, takes the replies (from the VIP: so they
// show that the backend has it) back to the socket, and ICMP errors that say that a probe did not
// arrive. Neither end of the socket is the VIP: the host may have that address itself, and routes
// to it as it pleases. Probes are TCP, UDP, and ICMP echo.
// Attached and filled by the control plane (controlplane/bpf_loader/probe_program.hpp).
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/cursor.h"
#include "bpf/outer.h"
#include "dataplane/abi/probe_abi.h"

#define L3 ((__u32)sizeof(struct ethhdr))
#define TCP_CHECKSUM 16  // offset in the header
#define UDP_CHECKSUM 6
#define ICMP_CHECKSUM 2
#define TCP_FLAGS 13
#define TCP_RESET 4
#define STRAGGLERS_NS (5ull * 1000 * 1000 * 1000)  // replies after the end of a probe
#define FAMILY_IPV4 2                              // AF_INET
#define FAMILY_IPV6 10                             // AF_INET6
// linux/bpf.h of 6.16: an address of IPv6 changes, which no header checksum makes up for.
#define CSUM_OF_IPV6 (1ull << 7)

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_probe_config);
} probe_config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_PROBE_TARGETS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u32);
  __type(value, struct sluice_probe_target);
} probe_targets SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, SLUICE_MAX_PROBE_FLOWS);
  __type(key, struct sluice_probe_flow);
  __type(value, __u64);  // replies are taken until then (bpf_ktime_get_ns()); 0: as they come
} probe_flows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, SLUICE_PROBE_COUNTERS);
  __type(key, __u32);
  __type(value, __u64);
} probe_stats SEC(".maps");

static __always_inline int count(__u32 counter, int verdict) {
  __u64* value = bpf_map_lookup_elem(&probe_stats, &counter);
  if (value) ++*value;
  return verdict;
}

static __always_inline int failed(void) {
  return count(SLUICE_PROBE_FAILED, TC_ACT_SHOT);
}

static __always_inline int is_zero(const __u8* address) {
  return (word_at(address) | word_at(address + 8)) == 0;
}

// conversation: what a probe's packet and the reply have in common besides their addresses.
struct conversation {
  struct ports ports;  // an echo's: its identifier in the place of the asker's port, and 0
  __u8 protocol;
  __u8 ended;
};

// read_conversation() reads the header at l4: of a probe, or of the reply to one. 0: of neither.
static __always_inline int read_conversation(struct __sk_buff* skb, __u32 l4, __u8 protocol,
                                             int reply, struct conversation* c) {
  c->protocol = protocol;
  c->ended = 0;
  if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
    return bpf_skb_load_bytes(skb, l4, &c->ports, sizeof c->ports) == 0;
  struct icmp_header icmp;
  if ((protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6) ||
      bpf_skb_load_bytes(skb, l4, &icmp, sizeof icmp) != 0)
    return 0;
  const __u8 wanted = protocol == IPPROTO_ICMP ? (reply ? ICMP_ECHO_REPLY : ICMP_ECHO)
                                               : (reply ? ICMPV6_ECHO_REPLY : ICMPV6_ECHO);
  if (icmp.type != wanted || icmp.code != 0) return 0;
  __be16 identifier;
  __builtin_memcpy(&identifier, &icmp.rest, sizeof identifier);
  c->ports.source = reply ? 0 : identifier;
  c->ports.destination = reply ? identifier : 0;
  return 1;
}

// read_probe() reads what is sent. A TCP probe ends with a reset.
static __always_inline int read_probe(struct __sk_buff* skb, __u32 l4, __u8 protocol,
                                      struct conversation* c) {
  if (!read_conversation(skb, l4, protocol, 0, c)) return 0;
  if (protocol != IPPROTO_TCP) return 1;
  __u8 flags;
  if (bpf_skb_load_bytes(skb, l4 + TCP_FLAGS, &flags, sizeof flags) != 0) return 0;
  c->ended = (flags & TCP_RESET) != 0;
  return 1;
}

// remember() enters the reply that a packet asks for. What the backend has sent by the end of the
// probe is still taken, but the port may soon be that of a connection of the host's own to the
// VIP. The end of what is no TCP is not seen.
static __always_inline void remember(const struct sluice_probe_target* t,
                                     const struct conversation* c) {
  struct sluice_probe_flow flow = {.source_port = c->ports.destination,
                                   .destination_port = c->ports.source,
                                   .protocol = c->protocol};
  __builtin_memcpy(flow.source, t->vip, sizeof flow.source);
  __builtin_memcpy(flow.destination, t->source, sizeof flow.destination);
  __u64 until = 0;
  if (c->protocol != IPPROTO_TCP)
    until = bpf_ktime_get_ns() + t->timeout_ms * 1000000ull + STRAGGLERS_NS;
  else if (c->ended)
    until = bpf_ktime_get_ns() + STRAGGLERS_NS;
  __u64* known = bpf_map_lookup_elem(&probe_flows, &flow);
  if (known)
    *known = until;
  else
    bpf_map_update_elem(&probe_flows, &flow, &until, BPF_ANY);
}

// transmit() sends a frame whose IP header is whole.
static __always_inline int transmit(struct __sk_buff* skb, const struct sluice_probe_target* t) {
  skb->mark = 0;
  if (is_zero(t->via)) {
    if (bpf_skb_store_bytes(skb, 0, t->next_hop, ETH_ALEN, 0) != 0 ||
        bpf_skb_store_bytes(skb, ETH_ALEN, t->out_mac, ETH_ALEN, 0) != 0)
      return failed();
    return count(SLUICE_PROBE_SENT, (int)bpf_redirect(t->out_ifindex, 0));
  }
  struct bpf_redir_neigh next = {};
  if (is_mapped_v4(t->via)) {
    next.nh_family = FAMILY_IPV4;
    next.ipv4_nh = half_at(t->via + 12);
  } else {
    next.nh_family = FAMILY_IPV6;
    __builtin_memcpy(next.ipv6_nh, t->via, sizeof next.ipv6_nh);
  }
  return count(SLUICE_PROBE_SENT, (int)bpf_redirect_neigh(t->out_ifindex, &next, sizeof next, 0));
}

// encapsulate() puts the outer header in front; `outer` and `shim` are its constant sizes.
static __always_inline int encapsulate(struct __sk_buff* skb, const struct sluice_probe_target* t,
                                       const struct inner* p, __u32 mode, __u32 outer, __u32 shim) {
  __u8 head[MAX_OUTER] = {};
  __u64 flags = mode == MODE_GUE   ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP
                : mode == MODE_GRE ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE
                                   : 0;
  __be16 type;
  if (outer == sizeof(struct iphdr)) {
    make_outer4(head, mode, p, shim, half_at(t->outer_source + 12), t->backend);
    flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
    type = bpf_htons(ETH_P_IP);
  } else {
    make_outer6(head, mode, p, shim, t->outer_source, t->backend);
    flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
    type = bpf_htons(ETH_P_IPV6);
  }
  make_shim(head + outer, mode, p, t->gue_port);
  if (bpf_skb_adjust_room(skb, (__s32)(outer + shim), BPF_ADJ_ROOM_MAC, flags) != 0 ||
      bpf_skb_store_bytes(skb, L3, head, outer + shim, 0) != 0 ||
      bpf_skb_store_bytes(skb, L3 - sizeof type, &type, sizeof type, 0) != 0)
    return failed();
  return transmit(skb, t);
}

static __always_inline int forward(struct __sk_buff* skb, const struct sluice_probe_target* t,
                                   const struct inner* p) {
  const int outer4 = is_mapped_v4(t->backend);
  switch (t->mode) {
    case MODE_IPIP:
      return outer4 ? encapsulate(skb, t, p, MODE_IPIP, sizeof(struct iphdr), 0)
                    : encapsulate(skb, t, p, MODE_IPIP, sizeof(struct ipv6hdr), 0);
    case MODE_GUE:
      return outer4 ? encapsulate(skb, t, p, MODE_GUE, sizeof(struct iphdr), 8)
                    : encapsulate(skb, t, p, MODE_GUE, sizeof(struct ipv6hdr), 8);
    case MODE_GRE:
      return outer4 ? encapsulate(skb, t, p, MODE_GRE, sizeof(struct iphdr), 4)
                    : encapsulate(skb, t, p, MODE_GRE, sizeof(struct ipv6hdr), 4);
    case MODE_DSR_L2:
    case MODE_DSR_DSCP:
      return transmit(skb, t);
    default:
      return failed();
  }
}

// destination_of() is where the packet goes once no tunnel is around it.
static __always_inline const __u8* destination_of(const struct sluice_probe_target* t) {
  return t->mode == MODE_DSR_DSCP ? t->backend : t->vip;
}

// replace_checksum4() puts the change of the addresses into the transport's checksum. ICMP's has
// no addresses, and a datagram need not have one.
static __always_inline long replace_checksum4(struct __sk_buff* skb, __u32 l4, __u8 protocol,
                                              __s64 changed) {
  if (protocol == IPPROTO_ICMP) return 0;
  if (protocol == IPPROTO_UDP)
    return bpf_l4_csum_replace(skb, l4 + UDP_CHECKSUM, 0, (__u64)changed,
                               BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
  return bpf_l4_csum_replace(skb, l4 + TCP_CHECKSUM, 0, (__u64)changed, BPF_F_PSEUDO_HDR);
}

static __always_inline long replace_checksum6(struct __sk_buff* skb, __u32 l4, __u8 protocol,
                                              const void* before, const void* after) {
  const __s64 changed = bpf_csum_diff((__be32*)before, 32, (__be32*)after, 32, 0);
  const __u32 at = l4 + (protocol == IPPROTO_TCP   ? TCP_CHECKSUM
                         : protocol == IPPROTO_UDP ? UDP_CHECKSUM
                                                   : ICMP_CHECKSUM);
  const __u64 flags = BPF_F_PSEUDO_HDR | (protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
  const long done = bpf_l4_csum_replace(skb, at, 0, (__u64)changed, flags | CSUM_OF_IPV6);
  if (done == 0) return 0;
  // An older kernel takes the change of the checksum, but not that of the addresses, for one
  // of what a NIC has summed up (CHECKSUM_COMPLETE): undone. With any other packet it is refused.
  const long replaced = bpf_l4_csum_replace(skb, at, 0, (__u64)changed, flags);
  if (replaced == 0) bpf_csum_update(skb, (__wsum)changed);
  return replaced;
}

static __always_inline int send4(struct __sk_buff* skb, const struct sluice_probe_target* t) {
  const __u32 l4 = L3 + sizeof(struct iphdr);
  struct iphdr ip;
  struct conversation c;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.ihl != 5 ||
      ip.protocol == IPPROTO_ICMPV6 || !read_probe(skb, l4, ip.protocol, &c) ||
      !is_mapped_v4(t->vip))
    return failed();
  remember(t, &c);
  const __be32 before[2] = {ip.saddr, ip.daddr};
  ip.saddr = half_at(t->source + 12);
  ip.daddr = half_at(destination_of(t) + 12);
  const __be32 after[2] = {ip.saddr, ip.daddr};
  if (t->mode == MODE_DSR_DSCP) ip.tos = (__u8)((ip.tos & 3) | t->dscp << 2);
  if (t->mode != MODE_DSR_L2) --ip.ttl;
  set_ipv4_checksum(&ip);
  const __s64 changed =
      bpf_csum_diff((__be32*)before, sizeof before, (__be32*)after, sizeof after, 0);
  if (replace_checksum4(skb, l4, ip.protocol, changed) != 0 ||
      bpf_skb_store_bytes(skb, L3, &ip, sizeof ip, 0) != 0)
    return failed();
  const struct inner p = {
      .bytes = bpf_ntohs(ip.tot_len), .entropy = bpf_ntohs(c.ports.source), .tos = ip.tos};
  return forward(skb, t, &p);
}

static __always_inline int send6(struct __sk_buff* skb, const struct sluice_probe_target* t) {
  const __u32 l4 = L3 + sizeof(struct ipv6hdr);
  struct ipv6hdr ip;
  struct conversation c;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.nexthdr == IPPROTO_ICMP ||
      !read_probe(skb, l4, ip.nexthdr, &c) || is_mapped_v4(t->vip))
    return failed();
  remember(t, &c);
  __u8 before[32];
  __builtin_memcpy(before, &ip.saddr, sizeof before);
  __builtin_memcpy(&ip.saddr, t->source, 16);
  __builtin_memcpy(&ip.daddr, destination_of(t), 16);
  __u8 tos = (__u8)(ip.priority << 4 | ip.flow_lbl[0] >> 4);
  if (t->mode == MODE_DSR_DSCP) {
    tos = (__u8)((tos & 3) | t->dscp << 2);
    ip.priority = tos >> 4;
    ip.flow_lbl[0] = (__u8)((ip.flow_lbl[0] & 0xf) | tos << 4);
  }
  if (t->mode != MODE_DSR_L2) --ip.hop_limit;
  if (replace_checksum6(skb, l4, ip.nexthdr, before, &ip.saddr) != 0 ||
      bpf_skb_store_bytes(skb, L3, &ip, sizeof ip, 0) != 0)
    return failed();
  const struct inner p = {.bytes = bpf_ntohs(ip.payload_len) + (__u32)sizeof ip,
                          .v6 = 1,
                          .entropy = bpf_ntohs(c.ports.source),
                          .tos = tos};
  return forward(skb, t, &p);
}

// Where the far end of the pair receives. Whatever else comes there (there should be
// nothing) goes nowhere.
SEC("tc")
int sluice_probe_tx(struct __sk_buff* skb) {
  const __u32 mark = skb->mark;
  const struct sluice_probe_target* t = bpf_map_lookup_elem(&probe_targets, &mark);
  if (!t || !t->out_ifindex) return count(SLUICE_PROBE_NO_PATH, TC_ACT_SHOT);
  switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
      return send4(skb, t);
    case bpf_htons(ETH_P_IPV6):
      return send6(skb, t);
    default:
      return failed();
  }
}

static __always_inline int deliver(struct __sk_buff* skb, const struct sluice_probe_config* c) {
  // The near end has no VLANs: a tagged frame would be nobody's there.
  if (skb->vlan_present && bpf_skb_vlan_pop(skb) != 0) return failed();
  if (bpf_skb_store_bytes(skb, 0, c->mac, ETH_ALEN, 0) != 0) return failed();
  skb->mark = 0;
  return count(SLUICE_PROBE_REPLY, (int)bpf_redirect(c->ifindex, BPF_F_INGRESS));
}

static __always_inline const struct sluice_probe_config* config_of(
    const struct sluice_probe_flow* flow) {
  const __u32 zero = 0;
  const __u64* until = bpf_map_lookup_elem(&probe_flows, flow);
  if (!until || (*until != 0 && bpf_ktime_get_ns() > *until)) return 0;
  return bpf_map_lookup_elem(&probe_config, &zero);
}

// readdress4() has the packet go from the peer to the near end.
static __always_inline int readdress4(struct __sk_buff* skb, const struct iphdr* ip, __u32 l4,
                                      const struct sluice_probe_config* c) {
  const __be32 before[2] = {ip->saddr, ip->daddr};
  const __be32 after[2] = {half_at(c->peer4), half_at(c->local4)};
  const __s64 changed =
      bpf_csum_diff((__be32*)before, sizeof before, (__be32*)after, sizeof after, 0);
  if (replace_checksum4(skb, l4, ip->protocol, changed) != 0 ||
      bpf_l3_csum_replace(skb, L3 + __builtin_offsetof(struct iphdr, check), 0, (__u64)changed,
                          0) != 0 ||
      bpf_skb_store_bytes(skb, L3 + __builtin_offsetof(struct iphdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return deliver(skb, c);
}

static __always_inline int readdress6(struct __sk_buff* skb, const struct ipv6hdr* ip,
                                      const struct sluice_probe_config* c) {
  __u8 after[32];
  __builtin_memcpy(after, c->peer6, 16);
  __builtin_memcpy(after + 16, c->local6, 16);
  if (replace_checksum6(skb, L3 + sizeof *ip, ip->nexthdr, &ip->saddr, after) != 0 ||
      bpf_skb_store_bytes(skb, L3 + __builtin_offsetof(struct ipv6hdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return deliver(skb, c);
}

// error4(), error6() take an ICMP error whose quoted packet is a probe: whoever sent it, it came
// to nothing. What the socket knows as the quoted packet is the one before it was readdressed.
static __always_inline int error4(struct __sk_buff* skb, const struct iphdr* ip, __u32 l4) {
  const __u32 at = l4 + sizeof(struct icmp_header);
  struct iphdr quoted;
  struct conversation asked;
  if (bpf_skb_load_bytes(skb, at, &quoted, sizeof quoted) != 0 || quoted.ihl != 5 ||
      quoted.protocol == IPPROTO_ICMPV6 ||
      !read_conversation(skb, at + sizeof quoted, quoted.protocol, 0, &asked))
    return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = asked.ports.destination,
                                   .destination_port = asked.ports.source,
                                   .protocol = quoted.protocol};
  map_ipv4(flow.source, quoted.daddr);
  map_ipv4(flow.destination, quoted.saddr);
  const struct sluice_probe_config* c = config_of(&flow);
  if (!c) return TC_ACT_UNSPEC;

  const __be32 before[2] = {quoted.saddr, quoted.daddr};
  const __be32 after[2] = {half_at(c->local4), half_at(c->peer4)};
  const __s64 changed =
      bpf_csum_diff((__be32*)before, sizeof before, (__be32*)after, sizeof after, 0);
  // The quoted header sums up to what it did: the checksum around it stays.
  if (bpf_l3_csum_replace(skb, at + __builtin_offsetof(struct iphdr, check), 0, (__u64)changed,
                          0) != 0 ||
      bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct iphdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return readdress4(skb, ip, l4, c);
}

static __always_inline int error6(struct __sk_buff* skb, const struct ipv6hdr* ip) {
  const __u32 l4 = L3 + sizeof *ip;
  const __u32 at = l4 + sizeof(struct icmp_header);
  struct ipv6hdr quoted;
  struct conversation asked;
  if (bpf_skb_load_bytes(skb, at, &quoted, sizeof quoted) != 0 || quoted.nexthdr == IPPROTO_ICMP ||
      !read_conversation(skb, at + sizeof quoted, quoted.nexthdr, 0, &asked))
    return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = asked.ports.destination,
                                   .destination_port = asked.ports.source,
                                   .protocol = quoted.nexthdr};
  __builtin_memcpy(flow.source, &quoted.daddr, sizeof flow.source);
  __builtin_memcpy(flow.destination, &quoted.saddr, sizeof flow.destination);
  const struct sluice_probe_config* c = config_of(&flow);
  if (!c) return TC_ACT_UNSPEC;

  __u8 after[32];
  __builtin_memcpy(after, c->local6, 16);
  __builtin_memcpy(after + 16, c->peer6, 16);
  const __s64 changed = bpf_csum_diff((__be32*)&quoted.saddr, 32, (__be32*)after, sizeof after, 0);
  if (bpf_l4_csum_replace(skb, l4 + ICMP_CHECKSUM, 0, (__u64)changed, 0) != 0 ||
      bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct ipv6hdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return readdress6(skb, ip, c);
}

static __always_inline int receive4(struct __sk_buff* skb) {
  struct iphdr ip;
  struct conversation reply;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0) return TC_ACT_UNSPEC;
  if (ip.ihl < 5 || ip.protocol == IPPROTO_ICMPV6 ||
      (ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)))
    return TC_ACT_UNSPEC;
  const __u32 l4 = L3 + ip.ihl * 4u;
  if (ip.protocol == IPPROTO_ICMP) {
    struct icmp_header icmp;
    if (bpf_skb_load_bytes(skb, l4, &icmp, sizeof icmp) != 0) return TC_ACT_UNSPEC;
    // One of a packet that was too big would change what the kernel knows of the pair's path.
    if (icmp.type == ICMP_UNREACHABLE)
      return icmp.code == ICMP_TOO_BIG ? TC_ACT_UNSPEC : error4(skb, &ip, l4);
  }
  if (!read_conversation(skb, l4, ip.protocol, 1, &reply)) return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = reply.ports.source,
                                   .destination_port = reply.ports.destination,
                                   .protocol = ip.protocol};
  map_ipv4(flow.source, ip.saddr);
  map_ipv4(flow.destination, ip.daddr);
  const struct sluice_probe_config* c = config_of(&flow);
  return c ? readdress4(skb, &ip, l4, c) : TC_ACT_UNSPEC;
}

static __always_inline int receive6(struct __sk_buff* skb) {
  const __u32 l4 = L3 + sizeof(struct ipv6hdr);
  struct ipv6hdr ip;
  struct conversation reply;
  // A backend's stack puts no extension headers into its answers.
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.nexthdr == IPPROTO_ICMP)
    return TC_ACT_UNSPEC;
  if (ip.nexthdr == IPPROTO_ICMPV6) {
    __u8 type;
    if (bpf_skb_load_bytes(skb, l4, &type, sizeof type) != 0) return TC_ACT_UNSPEC;
    if (type == ICMPV6_UNREACHABLE) return error6(skb, &ip);
  }
  if (!read_conversation(skb, l4, ip.nexthdr, 1, &reply)) return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = reply.ports.source,
                                   .destination_port = reply.ports.destination,
                                   .protocol = ip.nexthdr};
  __builtin_memcpy(flow.source, &ip.saddr, sizeof flow.source);
  __builtin_memcpy(flow.destination, &ip.daddr, sizeof flow.destination);
  const struct sluice_probe_config* c = config_of(&flow);
  return c ? readdress6(skb, &ip, c) : TC_ACT_UNSPEC;
}

// Where an uplink receives. What is no reply to a probe is left to whoever comes next.
SEC("tc")
int sluice_probe_rx(struct __sk_buff* skb) {
  switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
      return receive4(skb);
    case bpf_htons(ETH_P_IPV6):
      return receive6(skb);
    default:
      return TC_ACT_UNSPEC;
  }
}

char _license[] SEC("license") = "Dual BSD/GPL";
