// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// tc: health checks travel as traffic does. A probe's socket is bound to one end of a veth
// pair and connects to a peer that does not exist. `sluice_probe_tx`, where the other end
// receives, makes of its packets what the data plane would make of a client's: addressed to
// the VIP, encapsulated to the backend (the mark says which), out by the uplink.
// `sluice_probe_rx`, where the uplink receives, takes the replies (from the VIP: so they
// show that the backend has it) back to the socket. Neither end of the socket is the VIP:
// the host may have that address itself, and routes to it as it pleases.
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
#define TCP_CHECKSUM 16  // offset in the TCP header
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
  __type(value, __u64);  // when the probe ended (bpf_ktime_get_ns()); 0: it has not
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

// remember() enters the reply that a packet asks for. A probe ends with a reset; what the backend
// has sent by then is still taken, but the port may soon be that of a connection of the host's
// own to the VIP.
static __always_inline void remember(struct __sk_buff* skb, const struct sluice_probe_target* t,
                                     const struct ports* p, __u32 l4) {
  __u8 flags = 0;
  if (bpf_skb_load_bytes(skb, l4 + TCP_FLAGS, &flags, sizeof flags) != 0) return;
  struct sluice_probe_flow flow = {.source_port = p->destination, .destination_port = p->source};
  __builtin_memcpy(flow.source, t->vip, sizeof flow.source);
  __builtin_memcpy(flow.destination, t->source, sizeof flow.destination);
  const __u64 ended = flags & TCP_RESET ? bpf_ktime_get_ns() : 0;
  __u64* known = bpf_map_lookup_elem(&probe_flows, &flow);
  if (known)
    *known = ended;
  else
    bpf_map_update_elem(&probe_flows, &flow, &ended, BPF_ANY);
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

static __always_inline int send4(struct __sk_buff* skb, const struct sluice_probe_target* t) {
  struct iphdr ip;
  struct ports ports;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.ihl != 5 ||
      ip.protocol != IPPROTO_TCP ||
      bpf_skb_load_bytes(skb, L3 + sizeof ip, &ports, sizeof ports) != 0 || !is_mapped_v4(t->vip))
    return failed();
  remember(skb, t, &ports, L3 + sizeof ip);
  const __be32 before[2] = {ip.saddr, ip.daddr};
  ip.saddr = half_at(t->source + 12);
  ip.daddr = half_at(destination_of(t) + 12);
  const __be32 after[2] = {ip.saddr, ip.daddr};
  if (t->mode == MODE_DSR_DSCP) ip.tos = (__u8)((ip.tos & 3) | t->dscp << 2);
  if (t->mode != MODE_DSR_L2) --ip.ttl;
  set_ipv4_checksum(&ip);
  const __s64 changed =
      bpf_csum_diff((__be32*)before, sizeof before, (__be32*)after, sizeof after, 0);
  if (bpf_l4_csum_replace(skb, L3 + sizeof ip + TCP_CHECKSUM, 0, (__u64)changed,
                          BPF_F_PSEUDO_HDR) != 0 ||
      bpf_skb_store_bytes(skb, L3, &ip, sizeof ip, 0) != 0)
    return failed();
  const struct inner p = {
      .bytes = bpf_ntohs(ip.tot_len), .entropy = bpf_ntohs(ports.source), .tos = ip.tos};
  return forward(skb, t, &p);
}

static __always_inline long replace_checksum6(struct __sk_buff* skb, const void* before,
                                              const void* after) {
  const __s64 changed = bpf_csum_diff((__be32*)before, 32, (__be32*)after, 32, 0);
  const __u32 at = L3 + sizeof(struct ipv6hdr) + TCP_CHECKSUM;
  const long done =
      bpf_l4_csum_replace(skb, at, 0, (__u64)changed, BPF_F_PSEUDO_HDR | CSUM_OF_IPV6);
  if (done == 0) return 0;
  // An older kernel takes the change of the TCP checksum, but not that of the addresses, for one
  // of what a NIC has summed up (CHECKSUM_COMPLETE): undone. With any other packet it is refused.
  const long replaced = bpf_l4_csum_replace(skb, at, 0, (__u64)changed, BPF_F_PSEUDO_HDR);
  if (replaced == 0) bpf_csum_update(skb, (__wsum)changed);
  return replaced;
}

static __always_inline int send6(struct __sk_buff* skb, const struct sluice_probe_target* t) {
  struct ipv6hdr ip;
  struct ports ports;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.nexthdr != IPPROTO_TCP ||
      bpf_skb_load_bytes(skb, L3 + sizeof ip, &ports, sizeof ports) != 0 || is_mapped_v4(t->vip))
    return failed();
  remember(skb, t, &ports, L3 + sizeof ip);
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
  if (replace_checksum6(skb, before, &ip.saddr) != 0 ||
      bpf_skb_store_bytes(skb, L3, &ip, sizeof ip, 0) != 0)
    return failed();
  const struct inner p = {.bytes = bpf_ntohs(ip.payload_len) + (__u32)sizeof ip,
                          .v6 = 1,
                          .entropy = bpf_ntohs(ports.source),
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
  const __u64* ended = bpf_map_lookup_elem(&probe_flows, flow);
  if (!ended || (*ended != 0 && bpf_ktime_get_ns() - *ended > STRAGGLERS_NS)) return 0;
  return bpf_map_lookup_elem(&probe_config, &zero);
}

static __always_inline int receive4(struct __sk_buff* skb) {
  struct iphdr ip;
  struct ports ports;
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0) return TC_ACT_UNSPEC;
  if (ip.protocol != IPPROTO_TCP || ip.ihl < 5 ||
      (ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)))
    return TC_ACT_UNSPEC;
  const __u32 l4 = L3 + ip.ihl * 4u;
  if (bpf_skb_load_bytes(skb, l4, &ports, sizeof ports) != 0) return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = ports.source,
                                   .destination_port = ports.destination};
  map_ipv4(flow.source, ip.saddr);
  map_ipv4(flow.destination, ip.daddr);
  const struct sluice_probe_config* c = config_of(&flow);
  if (!c) return TC_ACT_UNSPEC;

  const __be32 before[2] = {ip.saddr, ip.daddr};
  const __be32 after[2] = {half_at(c->peer4), half_at(c->local4)};
  const __s64 changed =
      bpf_csum_diff((__be32*)before, sizeof before, (__be32*)after, sizeof after, 0);
  if (bpf_l4_csum_replace(skb, l4 + TCP_CHECKSUM, 0, (__u64)changed, BPF_F_PSEUDO_HDR) != 0 ||
      bpf_l3_csum_replace(skb, L3 + __builtin_offsetof(struct iphdr, check), 0, (__u64)changed,
                          0) != 0 ||
      bpf_skb_store_bytes(skb, L3 + __builtin_offsetof(struct iphdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return deliver(skb, c);
}

static __always_inline int receive6(struct __sk_buff* skb) {
  struct ipv6hdr ip;
  struct ports ports;
  // A backend's stack puts no extension headers into its TCP.
  if (bpf_skb_load_bytes(skb, L3, &ip, sizeof ip) != 0 || ip.nexthdr != IPPROTO_TCP ||
      bpf_skb_load_bytes(skb, L3 + sizeof ip, &ports, sizeof ports) != 0)
    return TC_ACT_UNSPEC;
  struct sluice_probe_flow flow = {.source_port = ports.source,
                                   .destination_port = ports.destination};
  __builtin_memcpy(flow.source, &ip.saddr, sizeof flow.source);
  __builtin_memcpy(flow.destination, &ip.daddr, sizeof flow.destination);
  const struct sluice_probe_config* c = config_of(&flow);
  if (!c) return TC_ACT_UNSPEC;

  __u8 after[32];
  __builtin_memcpy(after, c->peer6, 16);
  __builtin_memcpy(after + 16, c->local6, 16);
  if (replace_checksum6(skb, &ip.saddr, after) != 0 ||
      bpf_skb_store_bytes(skb, L3 + __builtin_offsetof(struct ipv6hdr, saddr), after, sizeof after,
                          0) != 0)
    return failed();
  return deliver(skb, c);
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
