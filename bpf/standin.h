// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The stand-in: forwards a service's packets to backends while no data plane does. It has
// no connections, but the tables by which the data plane chooses (and the few connections
// that are elsewhere, in `pinned`), so that each packet goes where it went before.
// Forwards as the data plane does (dataplane/packet/encapsulate.hpp says what and why):
// dsr-l2, ipip, gue, gre. Included by steer.bpf.c only.
#pragma once

#include "bpf/outer.h"
#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/standin_abi.h"

#define STANDIN_CANNOT (-1)  // only the data plane can forward it

#define MAX_LINK 22  // Ethernet and two tags

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_standin_config);
} standin_config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_VIP_ENTRIES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_vip_key);
  __type(value, struct sluice_standin_ports);
} standin_ports SEC(".maps");

// BPF_F_INNER_MAP: tables of all sizes. BPF_F_MMAPABLE: written at memory speed.
struct table {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, __u64);
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, SLUICE_STANDIN_SERVICES);
  __uint(key_size, sizeof(__u32));
  __array(values, struct table);
} standin_tables SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_STANDIN_ROWS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u32);
  __type(value, struct sluice_standin_row);
} standin_rows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_PINNED);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct sluice_flow);
  __type(value, __u32);
} pinned SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SLUICE_HEARTBEATS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, __u64);
} heartbeat SEC(".maps");

// task: a packet on its way through the stand-in.
struct task {
  __u64 hash;
  __u32 link;      // bytes before the IP header: 14, 18, 22
  __u32 v6;        // 1: the packet is IPv6
  __u32 ip_bytes;  // from the IP header on, by what it says itself
  __u32 counter;   // that tells it when forwarded
  __u8 tos;
  __u8 ttl;
};

static __always_inline __u32 standin_service(const struct sluice_vip_key* destination) {
  struct sluice_vip_key key = *destination;
  const struct sluice_standin_ports* found;
  if (key.port) {
    found = bpf_map_lookup_elem(&standin_ports, &key);
    if (found) return found->service;
  }
  const __u16 port = bpf_ntohs(key.port);
  key.port = 0;
  found = bpf_map_lookup_elem(&standin_ports, &key);
  if (!found) return SLUICE_NO_SERVICE;
#pragma unroll
  for (__u32 i = 0; i < SLUICE_VIP_RANGES; ++i)
    if (i < found->ranges && port >= found->range[i].first && port <= found->range[i].last)
      return found->range[i].service;
  return found->service;
}

static __always_inline __u64 flow_hash_of(const struct packet* p, __u32 v6, __u64 seed) {
  const __u8* source = p->source.address;
  const __u8* destination = p->destination.address;
  if (v6)
    return sluice_flow_hash6(seed, word_at(source), word_at(source + 8), word_at(destination),
                             word_at(destination + 8), p->source.port, p->destination.port,
                             p->source.protocol);
  return sluice_flow_hash4(seed, half_at(source + 12), half_at(destination + 12), p->source.port,
                           p->destination.port, p->source.protocol);
}

// cut_half() is the first `bits` of 64 in network order, as they are in memory.
static __always_inline __u64 cut_half(__u64 half, __u32 bits) {
  if (bits >= 64) return half;
  return bits == 0 ? 0 : half & bpf_cpu_to_be64(~0ull << (64 - bits));
}

// source_hash_of(): dataplane/abi/stateless_choice.hpp.
static __always_inline __u64 source_hash_of(const struct packet* p, __u32 v6, __u64 seed,
                                            __u64 how) {
  const __u8* source = p->source.address;
  if (v6) {
    const __u32 bits = (how >> SLUICE_TABLE_BITS6_SHIFT) & 0xff;
    return sluice_source_hash6(seed, cut_half(word_at(source), bits),
                               cut_half(word_at(source + 8), bits > 64 ? bits - 64 : 0));
  }
  const __u32 bits = (how >> SLUICE_TABLE_BITS4_SHIFT) & 0xff;
  const __u32 mask = bits >= 32 ? ~0u : bits == 0 ? 0 : bpf_htonl(~0u << (32 - bits));
  return sluice_source_hash4(seed, half_at(source + 12) & mask);
}

// by_table() returns the backend that the service's table names.
static __always_inline __u32 by_table(const struct packet* p, __u32 service, __u32 v6, __u64 seed,
                                      __u64 hash) {
  void* table = bpf_map_lookup_elem(&standin_tables, &service);
  if (!table) return SLUICE_NO_BACKEND;
  __u32 at = 0;
  const __u64* element = bpf_map_lookup_elem(table, &at);
  if (!element) return SLUICE_NO_BACKEND;
  const __u32 slots = (__u32)*element;
  const __u64 how = *element;
  if (how & SLUICE_TABLE_BY_SOURCE) hash = source_hash_of(p, v6, seed, how);
  const __u32 slot = sluice_slot(hash, slots);
  at = 1 + slot / 2;
  element = bpf_map_lookup_elem(table, &at);
  if (!element) return SLUICE_NO_BACKEND;
  return slot & 1 ? (__u32)(*element >> 32) : (__u32)*element;
}

static __always_inline struct sluice_standin_row* pinned_row(const struct packet* p) {
  struct sluice_flow flow = {.source_port = p->source.port,
                             .destination_port = p->destination.port,
                             .protocol = p->source.protocol};
  __builtin_memcpy(flow.source, p->source.address, sizeof flow.source);
  __builtin_memcpy(flow.destination, p->destination.address, sizeof flow.destination);
  const __u32* ref = bpf_map_lookup_elem(&pinned, &flow);
  if (!ref) return 0;
  struct sluice_standin_row* row = bpf_map_lookup_elem(&standin_rows, ref);
  return row && row->keeps ? row : 0;
}

static __always_inline int transmit(struct xdp_md* ctx, const struct sluice_standin_row* row,
                                    __u32 counter) {
  if (row->out_ifindex == ctx->ingress_ifindex) return count(counter, XDP_TX);
  return count(counter, (int)bpf_redirect(row->out_ifindex, 0));
}

static __always_inline int failed(void) {
  return count(SLUICE_STANDIN_FAILED, XDP_DROP);
}

// take_ttl() takes one off the packet's TTL or hop limit; the checksum by RFC 1624.
static __always_inline int take_ttl(struct xdp_md* ctx, __u32 at, __u32 v6) {
  void* ip = (void*)(long)ctx->data + at;
  void* end = (void*)(long)ctx->data_end;
  if (v6) {
    struct ipv6hdr* h = ip;
    if ((void*)(h + 1) > end) return 0;
    --h->hop_limit;
    return 1;
  }
  struct iphdr* h = ip;
  if ((void*)(h + 1) > end) return 0;
  const __u32 sum = (__u32)h->check + bpf_htons(0x0100);
  h->check = (__u16)(sum + (sum >= 0xffff ? 1 : 0));
  --h->ttl;
  return 1;
}

// outer_source4(), outer_source6(): as dataplane/packet/encapsulate.hpp, from the same hash.
static __always_inline __be32 outer_source4(const struct sluice_standin_config* config,
                                            __u64 hash) {
  const __u32 bits = 32u - config->prefix4;
  const __u32 base = bpf_ntohl(half_at(config->source4));
  if (bits == 0 || bits > 31) return bpf_htonl(base);
  const __u64 random = hash & 0xffffffff;
  const __u64 hosts = 1ull << bits;
  const __u64 host = bits == 1 ? random >> 31 : 1 + ((random * (hosts - 2)) >> 32);
  return bpf_htonl((base & (__u32) ~(hosts - 1)) | (__u32)host);
}
static __always_inline void outer_source6(const struct sluice_standin_config* config, __u64 hash,
                                          __u8* to) {
  __builtin_memcpy(to, config->source6, 16);
  if (config->prefix6 >= 128) return;
  const __u32 bits = 128u - config->prefix6 < 32 ? 128u - config->prefix6 : 32;
  const __u64 hosts = 1ull << bits;
  const __u64 host = 1 + (((hash & 0xffffffff) * (hosts - 1)) >> 32);
  const __u32 low = bpf_ntohl(half_at(to + 12));
  const __be32 out = bpf_htonl((low & (__u32) ~(hosts - 1)) | (__u32)host);
  __builtin_memcpy(to + 12, &out, sizeof out);
}

// encapsulate() puts the outer header in front; `outer` and `shim` are its constant sizes.
static __always_inline int encapsulate(struct xdp_md* ctx, const struct task* t,
                                       const struct sluice_standin_row* row,
                                       const struct sluice_standin_config* config, __u32 mode,
                                       __u32 outer, __u32 shim) {
  const __u32 added = outer + shim;
  if (t->ip_bytes + added > row->mtu) return count(SLUICE_STANDIN_TOO_BIG, XDP_DROP);
  if ((outer == sizeof(struct iphdr) ? config->prefix4 > 32 : config->prefix6 > 128))
    return failed();
  __u8 head[MAX_OUTER] = {};
  const struct inner p = {
      .bytes = t->ip_bytes, .v6 = t->v6, .entropy = (__u32)t->hash, .tos = t->tos};
  if (outer == sizeof(struct iphdr)) {
    make_outer4(head, mode, &p, shim, outer_source4(config, t->hash), row->address);
  } else {
    __u8 source[16];
    outer_source6(config, t->hash, source);
    make_outer6(head, mode, &p, shim, source, row->address);
  }
  make_shim(head + outer, mode, &p, config->gue_port);

  const __u32 link = t->link;
  __u8 frame[MAX_LINK] = {};
  if (link < sizeof(struct ethhdr) || link > MAX_LINK) return failed();
  if (bpf_xdp_load_bytes(ctx, 0, frame, link) != 0) return failed();
  if (!take_ttl(ctx, link, t->v6)) return failed();
  if (bpf_xdp_adjust_head(ctx, -(int)added) != 0) return failed();
  const __be16 type = bpf_htons(outer == sizeof(struct iphdr) ? ETH_P_IP : ETH_P_IPV6);
  __builtin_memcpy(frame, row->next_hop, ETH_ALEN);
  __builtin_memcpy(frame + ETH_ALEN, row->out_mac, ETH_ALEN);
  if (bpf_xdp_store_bytes(ctx, 0, frame, link) != 0 ||
      bpf_xdp_store_bytes(ctx, link - sizeof type, (void*)&type, sizeof type) != 0 ||
      bpf_xdp_store_bytes(ctx, link, head, added) != 0)
    return failed();
  return transmit(ctx, row, t->counter);
}

static __always_inline int readdress(struct xdp_md* ctx, const struct task* t,
                                     const struct sluice_standin_row* row) {
  if (t->ip_bytes > row->mtu) return count(SLUICE_STANDIN_TOO_BIG, XDP_DROP);
  struct cursor c = cursor_of(ctx);
  struct ethhdr* ethernet = cursor_take(&c, sizeof(*ethernet));
  if (!ethernet) return failed();
  __builtin_memcpy(ethernet->h_dest, row->next_hop, ETH_ALEN);
  __builtin_memcpy(ethernet->h_source, row->out_mac, ETH_ALEN);
  return transmit(ctx, row, t->counter);
}

// stand_in() decides on a packet with ports to a service; returns the verdict, or
// STANDIN_CANNOT.
static __always_inline int stand_in(struct xdp_md* ctx, const struct packet* p,
                                    const struct sluice_standin_config* config) {
  struct task t = {.link = p->link, .v6 = p->v6, .counter = SLUICE_STANDIN_PINNED};
  struct cursor c = cursor_of(ctx);
  // p->link is one of three values; the mask tells the verifier.
  if (!cursor_skip(&c, p->link)) return failed();
  if (t.v6) {
    const struct ipv6hdr* ip = cursor_take(&c, sizeof(*ip));
    if (!ip) return failed();
    t.ip_bytes = bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip);
    t.tos = (__u8)(ip->priority << 4 | ip->flow_lbl[0] >> 4);
    t.ttl = ip->hop_limit;
  } else {
    const struct iphdr* ip = cursor_take(&c, sizeof(*ip));
    if (!ip) return failed();
    t.ip_bytes = bpf_ntohs(ip->tot_len);
    t.tos = ip->tos;
    t.ttl = ip->ttl;
  }
  if (t.ip_bytes + p->link > (__u32)(ctx->data_end - ctx->data))
    return count(SLUICE_STANDIN_FAILED, XDP_DROP);
  if (t.ttl <= 1) return count(SLUICE_STANDIN_TTL, XDP_DROP);

  const __u32 service = standin_service(&p->destination);
  if (service == SLUICE_NO_SERVICE) return STANDIN_CANNOT;  // the NAT pool's
  t.hash = flow_hash_of(p, t.v6, config->hash_seed);
  struct sluice_standin_row* row = pinned_row(p);
  if (!row) {
    t.counter = SLUICE_STANDIN_FORWARDED;
    const __u32 ref = by_table(p, service, t.v6, config->hash_seed, t.hash);
    row = bpf_map_lookup_elem(&standin_rows, &ref);
  }
  if (!row || !row->out_ifindex) return count(SLUICE_STANDIN_NO_BACKEND, XDP_DROP);
  const int outer4 = is_mapped_v4(row->address);
  switch (row->mode) {
    case MODE_DSR_L2:
      return readdress(ctx, &t, row);
    case MODE_IPIP:
      return outer4 ? encapsulate(ctx, &t, row, config, MODE_IPIP, sizeof(struct iphdr), 0)
                    : encapsulate(ctx, &t, row, config, MODE_IPIP, sizeof(struct ipv6hdr), 0);
    case MODE_GUE:
      return outer4 ? encapsulate(ctx, &t, row, config, MODE_GUE, sizeof(struct iphdr), 8)
                    : encapsulate(ctx, &t, row, config, MODE_GUE, sizeof(struct ipv6hdr), 8);
    case MODE_GRE:
      return outer4 ? encapsulate(ctx, &t, row, config, MODE_GRE, sizeof(struct iphdr), 4)
                    : encapsulate(ctx, &t, row, config, MODE_GRE, sizeof(struct ipv6hdr), 4);
    default:
      return STANDIN_CANNOT;
  }
}
