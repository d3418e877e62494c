// SPDX-License-Identifier: Apache-2.0
// Layout of the config segment (written by the control plane, mapped read-only by the
// data plane) and the look-ups in it, so that workers, `sluice explain`, `sluice
// replay` and the tests agree.
//
//   segment_header | config_control | slot 0 | slot 1 | slot 2 | arena
//
// A slot holds one generation: header and rows. The arena holds the schedulers'
// tables (slot_table.hpp: positions into the service's members); a table that no
// generation in use refers to is free. All offsets are from the segment's start.
//
// Threading: rows of a published slot do not change until every reader has moved on
// (generation.hpp). Readers trust no index: config_view checks each one, on a copy.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/prefix_list.hpp"
#include "dataplane/abi/service_options.hpp"
#include "dataplane/abi/slot_table.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::abi {

enum class forward_mode : std::uint8_t {
  none = 0,
  dsr_l2 = 1,
  ipip = 2,
  gue = 3,
  gre = 4,
  dsr_dscp = 5,  // L3DSR: the backend's address, and a DSCP that names the VIP
  nat = 6,
  full_nat = 7,
  count_ = 8,
};

// How a service's table of positions into its members is read for a new connection.
// The tables are the control plane's work: the worker only picks a slot. Whatever the
// scheduler, a packet that neither begins a connection nor finds one in the table goes to the
// slot of its hash (stateless_choice.hpp).
enum class scheduler : std::uint8_t {
  none = 0,
  maglev = 1,                // slot by flow hash
  ring_hash = 2,             // slot by flow hash; the table is the ring, cut into equal arcs
  partitioned_hash = 3,      // slot by flow hash; a slot is a partition
  source_hash = 4,           // slot by hash of the source address alone
  round_robin = 5,           // slots in turn, per worker; each member once
  weighted_round_robin = 6,  // slots in turn, per worker; the smooth sequence of one cycle
  random = 7,                // any slot; each member once
  weighted_random = 8,       // any slot; slots in proportion to weights
  // The member with the fewest connections of all workers; the second: per
  // backend_row::weight. The table is for packets that go by the hash; without one
  // (table_size 0) the hash names a member.
  least_connections = 9,
  weighted_least_connections = 10,
  count_ = 11,
};

// States of a tracked connection; the order is the order of worth when a bucket is
// full (low gives way first). Seen from the client's side only (direct return).
enum class connection_state : std::uint8_t {
  free = 0,
  closed = 1,       // RST seen
  syn = 2,          // SYN seen, nothing since
  learned = 3,      // first packet seen was not a SYN: moved here, or forged
  udp_new = 4,      // one datagram seen
  closing = 5,      // FIN from the client seen
  udp = 6,          // two datagrams or more
  established = 7,  // TCP, a packet after the first
  count_ = 8,
};
inline constexpr std::size_t connection_state_count =
    static_cast<std::size_t>(connection_state::count_);

// Seconds a connection may be idle in each state.
inline constexpr std::array<std::uint16_t, connection_state_count> default_timeouts{
    0, 10, 30, 60, 30, 120, 300, 900};

// vip_row: one (address, protocol) that services listen on. Open addressing with
// linear probing by vip_hash(); protocol 0 means empty.
struct vip_row {
  ip_address address;
  std::uint8_t protocol;  // ip_proto
  std::uint8_t reserved0;
  vip_id id;                  // stable while the VIP exists; part of connection keys
  service_id any_service;     // serves every port that no other service of this VIP has
  std::uint16_t range_count;  // rows in range_row from range_first on
  std::uint32_t range_first;
  std::uint32_t reserved1;
};
static_assert(sizeof(vip_row) == 32 && std::has_unique_object_representations_v<vip_row>);

// port_row: (vip, port) -> service. Open addressing, linear probing; used 0: empty.
struct port_row {
  vip_id vip;
  std::uint16_t port;  // host order
  service_id service;
  std::uint16_t used;
};
static_assert(sizeof(port_row) == 8);

// range_row: ports first..last (host order, inclusive), sorted by first, disjoint.
struct range_row {
  std::uint16_t first;
  std::uint16_t last;
  service_id service;
  std::uint16_t reserved0;
};
static_assert(sizeof(range_row) == 8);

enum service_flags : std::uint8_t {
  service_answers_echo = 1,    // ICMP echo to the VIP, while the service has a backend
  service_has_options = 2,     // service_options says more: read it for new connections
  service_counts_packets = 4,  // service_options::packet_rate: read it for every packet
};

struct alignas(cache_line) service_row {
  vip_id vip;
  service_id self;           // equals its own index, or the row is not in use
  std::uint16_t port_first;  // host order; any: 0..65535
  std::uint16_t port_last;
  std::uint8_t protocol;
  abi::forward_mode mode;
  abi::scheduler kind;
  std::uint8_t flags;          // service_flags
  std::uint32_t member_first;  // into the member rows
  std::uint32_t member_count;  // 0: no backend takes new connections
  std::uint32_t table_size;    // slots
  std::uint64_t table_offset;  // of the table (slot_table.hpp), from the segment's start
  std::uint64_t table_digest;  // FNV-1a of (backend identity per slot), for comparing nodes
  std::uint16_t mss_clamp;     // largest MSS a client's SYN may announce; 0: left alone
  std::uint16_t reserved0;
  std::uint32_t reserved1;
  std::uint64_t reserved2[2];
};
static_assert(sizeof(service_row) == 64 && offsetof(service_row, table_offset) == 24);

enum backend_flags : std::uint8_t {
  backend_in_use = 1,
  backend_keeps_connections = 2,  // connections in the table may go on (not down, not removed)
  backend_has_next_hop = 4,
};

// backend_row: one backend of one service, as the packet path needs it.
struct alignas(cache_line) backend_row {
  ip_address address;
  mac_address next_hop;   // destination MAC of the frame to it
  std::uint8_t out_port;  // index into the data plane's ports
  std::uint8_t flags;     // backend_flags
  service_id service;
  std::uint8_t incarnation;  // 4 bits; see backend_ref
  abi::forward_mode mode;
  std::uint16_t mtu;            // bytes of IP packet that fit the next hop's link
  std::uint16_t port;           // nat, full_nat: destination port, host order; 0: as in the packet
  std::uint32_t weight;         // effective; 0: takes no new connections (not a member)
  std::uint8_t dscp;            // dsr_dscp: 6 bits
  std::uint8_t quic_id_length;  // bytes; 0: none
  std::uint16_t reserved0;
  std::array<std::uint8_t, 8> quic_id;  // server id in a QUIC connection id, left-aligned
  std::uint64_t reserved1[2];
};
static_assert(sizeof(backend_row) == 64 && offsetof(backend_row, service) == 24);

// Cold companions, for people: never read on the packet path.
enum class shown_health : std::uint8_t { unknown = 0, up = 1, down = 2, unchecked = 3 };
enum class shown_admin : std::uint8_t { enabled = 0, draining = 1 };

struct service_cold {
  std::array<char, 56> name;  // at most 48 characters, NUL-terminated
  // Sums of the observation counters when the row was given to this service.
  std::uint64_t base_packets, base_bytes, base_opened, base_dropped;
  std::uint64_t reserved0[5];
};
static_assert(sizeof(service_cold) == 128);

struct backend_cold {
  std::uint32_t weight;            // as configured
  std::uint32_t effective_weight;  // what the table was built with; 0: not in it
  std::uint8_t tier;
  shown_health health;
  shown_admin admin;
  std::uint8_t reserved0;
  std::uint32_t slots;  // slots of the table that name it
  // Sums of the observation counters when the row was given to this backend.
  std::uint64_t base_packets, base_bytes, base_opened, base_closed, base_resets;
  std::uint64_t reserved1;
};
static_assert(sizeof(backend_cold) == 64);

// encap_source: outer source address. Host bits beyond `prefix` come from the flow
// (spreads one tunnel over the backend's RX queues); prefix 32/128: fixed address.
struct encap_source {
  ip_address base;      // all zero: not configured
  std::uint8_t prefix;  // bits, of 32 for IPv4 and 128 for IPv6
  std::uint8_t configured;
  std::uint8_t reserved0[6];
};
static_assert(sizeof(encap_source) == 24);

enum generation_flags : std::uint64_t {
  generation_has_nat = 1,  // some service is nat or full_nat
};

struct alignas(cache_line) generation_header {
  std::uint64_t number;
  std::uint64_t hash_seed;
  std::uint64_t revision;       // of the desired state it was made from
  std::uint64_t digest;         // over all services' table digests
  std::uint64_t built_at_ns;    // CLOCK_REALTIME
  std::uint32_t service_count;  // rows in use or not, 0..count-1
  std::uint32_t backend_count;
  std::uint32_t member_count;
  std::uint32_t range_count;
  std::uint32_t vip_mask;  // vip rows in use by the hash, minus 1 (power of two)
  std::uint32_t port_mask;
  std::uint32_t vip_count;
  std::uint16_t list_count;  // of prefix_list
  std::uint16_t pool_count;  // of pool addresses
  encap_source source4;
  encap_source source6;
  std::array<std::uint16_t, connection_state_count> timeouts;  // seconds
  std::uint64_t base_instance;  // observation segment that the base counters refer to; 0: none
  std::uint16_t gue_port;       // UDP destination port of gue, host order
  std::uint16_t worker_count;   // what the rates were divided by; 0: not known
  std::uint32_t icmp_rate;      // ICMP errors and echo replies per second and worker; 0: default
  std::uint64_t flags;          // generation_flags
  std::uint64_t flushes;        // another number than before, not 0: connections whose backend
                                //   is named by no row any more are to be forgotten
  std::uint64_t reserved1[1];
};
static_assert(sizeof(generation_header) == 192);

struct config_limits {
  std::uint32_t services;  // rows
  std::uint32_t backends;  // rows
  std::uint64_t arena_bytes;
};

struct alignas(cache_line) config_control {
  std::atomic<std::uint64_t> current;  // generation_word
  std::uint64_t reserved0[7];
  config_limits limits;
  std::uint64_t reserved1[6];
};
static_assert(sizeof(config_control) == 128 && offsetof(config_control, limits) == 64);

struct alignas(cache_line) segment_header {
  std::uint64_t magic;
  std::uint32_t version;  // abi_version
  std::uint32_t reserved0;
  std::uint64_t size;        // bytes of the whole file
  std::uint64_t instance;    // random, new with every file
  std::uint64_t created_ns;  // CLOCK_REALTIME
  std::uint64_t reserved1[3];
};
static_assert(sizeof(segment_header) == 64);

// config_layout: where everything is, from the limits alone. Both sides compute it.
struct config_layout {
  std::uint32_t services, backends, members, ranges, vip_capacity, port_capacity;
  // Offsets within a slot.
  std::uint64_t vips, ports, range_rows, service_rows, backend_rows, member_rows, service_colds,
      backend_colds, option_rows, list_rows, pool_rows, slot_bytes;
  // Offsets within the segment.
  std::uint64_t slots, arena, arena_bytes, total;

  static constexpr bool valid(const config_limits& l) noexcept {
    return l.services >= 1 && l.services <= max_services && l.backends >= 1 &&
           l.backends <= max_backends && l.arena_bytes >= 4096 &&
           l.arena_bytes <= (std::uint64_t{1} << 40);
  }
  static constexpr config_layout of(const config_limits& l) noexcept {
    config_layout c{};
    c.services = l.services;
    c.backends = l.backends;
    c.members = l.backends;
    c.ranges = l.services;
    c.vip_capacity = std::bit_ceil(l.services * 2);
    c.port_capacity = std::bit_ceil(l.services * 2);
    std::uint64_t at = sizeof(generation_header);
    const auto take = [&at](std::uint64_t bytes) {
      const std::uint64_t here = at;
      at += (bytes + cache_line - 1) / cache_line * cache_line;
      return here;
    };
    c.vips = take(std::uint64_t{c.vip_capacity} * sizeof(vip_row));
    c.ports = take(std::uint64_t{c.port_capacity} * sizeof(port_row));
    c.range_rows = take(std::uint64_t{c.ranges} * sizeof(range_row));
    c.service_rows = take(std::uint64_t{c.services} * sizeof(service_row));
    c.backend_rows = take(std::uint64_t{c.backends} * sizeof(backend_row));
    c.member_rows = take(std::uint64_t{c.members} * sizeof(backend_ref));
    c.service_colds = take(std::uint64_t{c.services} * sizeof(service_cold));
    c.backend_colds = take(std::uint64_t{c.backends} * sizeof(backend_cold));
    c.option_rows = take(std::uint64_t{c.services} * sizeof(service_options));
    c.list_rows = take(std::uint64_t{max_prefix_lists} * sizeof(prefix_list));
    c.pool_rows = take(std::uint64_t{max_pool_addresses} * sizeof(ip_address));
    c.slot_bytes = (at + 4095) / 4096 * 4096;
    c.slots = 4096;
    c.arena = c.slots + config_slots * c.slot_bytes;
    c.arena_bytes = (l.arena_bytes + 4095) / 4096 * 4096;
    c.total = c.arena + c.arena_bytes;
    return c;
  }
};

// vip_hash: place of (address, protocol). Only the control plane inserts, at load <= 0.5.
// In memory order the last octets, in which VIPs differ, are the top bits of a word, and a
// product's bits depend on no higher ones: so the halves are folded before.
inline std::uint32_t vip_hash(std::uint64_t high, std::uint64_t low,
                              std::uint8_t protocol) noexcept {
  std::uint64_t h = (low ^ (high * 0x9e3779b97f4a7c15ull)) + protocol;
  h ^= h >> 32;
  h *= 0xbf58476d1ce4e5b9ull;
  return static_cast<std::uint32_t>(h >> 32);
}
inline std::uint32_t vip_hash(const ip_address& a, std::uint8_t protocol) noexcept {
  return vip_hash(a.high(), a.low(), protocol);
}
inline std::uint32_t port_hash(vip_id vip, std::uint16_t port) noexcept {
  const std::uint32_t k = static_cast<std::uint32_t>(vip) << 16 | port;
  return static_cast<std::uint32_t>((k * 0x9e3779b97f4a7c15ull) >> 32);
}

// config_view: one generation, checked once when it is taken up, read many times.
// A reader keeps it by value; it is valid until the reader's next quiescent point.
class config_view {
 public:
  config_view() noexcept = default;

  // open() checks the header of `slot` against the limits the segment was attached
  // with. Returns false (and an empty view) when anything is out of bounds. The
  // header is copied: later changes of the original cannot move the bounds.
  static bool open(const std::byte* segment, const config_limits& limits, unsigned slot,
                   config_view& out) noexcept {
    out = config_view{};
    if (slot >= config_slots || !config_layout::valid(limits)) return false;
    const config_layout layout = config_layout::of(limits);
    const std::byte* base = segment + layout.slots + slot * layout.slot_bytes;
    generation_header h;
    std::memcpy(&h, base, sizeof h);
    const auto mask_ok = [](std::uint32_t mask, std::uint32_t capacity) {
      return mask < capacity && std::has_single_bit(mask + 1);
    };
    if (h.service_count > layout.services || h.backend_count > layout.backends ||
        h.member_count > layout.members || h.range_count > layout.ranges ||
        !mask_ok(h.vip_mask, layout.vip_capacity) || !mask_ok(h.port_mask, layout.port_capacity) ||
        h.source4.prefix > 32 || h.source6.prefix > 128 || h.list_count > max_prefix_lists ||
        h.pool_count > max_pool_addresses)
      return false;
    out.header_ = h;
    out.segment_ = segment;
    out.vips_ = reinterpret_cast<const vip_row*>(base + layout.vips);
    out.ports_ = reinterpret_cast<const port_row*>(base + layout.ports);
    out.ranges_ = reinterpret_cast<const range_row*>(base + layout.range_rows);
    out.services_ = reinterpret_cast<const service_row*>(base + layout.service_rows);
    out.backends_ = reinterpret_cast<const backend_row*>(base + layout.backend_rows);
    out.members_ = reinterpret_cast<const backend_ref*>(base + layout.member_rows);
    out.service_colds_ = reinterpret_cast<const service_cold*>(base + layout.service_colds);
    out.backend_colds_ = reinterpret_cast<const backend_cold*>(base + layout.backend_colds);
    out.options_ = reinterpret_cast<const service_options*>(base + layout.option_rows);
    out.lists_ = reinterpret_cast<const prefix_list*>(base + layout.list_rows);
    out.pool_ = reinterpret_cast<const ip_address*>(base + layout.pool_rows);
    out.arena_first_ = layout.arena;
    out.arena_last_ = layout.total;
    return true;
  }

  [[nodiscard]] bool empty() const noexcept { return vips_ == nullptr; }
  [[nodiscard]] const generation_header& header() const noexcept { return header_; }

  // find_vip() returns the row of (address, protocol), or null. The probe is bounded
  // by the table, whatever its content.
  [[nodiscard]] const vip_row* find_vip(const ip_address& address,
                                        std::uint8_t protocol) const noexcept {
    return find_vip(address.high(), address.low(), protocol);
  }
  // The same with the address's halves as they are in memory (ip_address::high(), low()).
  [[nodiscard]] const vip_row* find_vip(std::uint64_t high, std::uint64_t low,
                                        std::uint8_t protocol) const noexcept {
    const std::uint32_t start = vip_hash(high, low, protocol);
    for (std::uint32_t i = 0; i <= header_.vip_mask; ++i) {
      const vip_row& row = vips_[(start + i) & header_.vip_mask];
      if (row.protocol == 0) return nullptr;
      if (row.address.low() == low && row.address.high() == high && row.protocol == protocol)
        return &row;
    }
    return nullptr;
  }
  void prefetch_vip(const ip_address& address, std::uint8_t protocol) const noexcept {
    __builtin_prefetch(&vips_[vip_hash(address, protocol) & header_.vip_mask]);
  }

  // find_service() returns the service of a port of a VIP: exact port, then range,
  // then the VIP's any-port service; null if there is none or the row is impossible.
  [[nodiscard]] const service_row* find_service(const vip_row& vip,
                                                std::uint16_t port) const noexcept {
    const std::uint32_t start = port_hash(vip.id, port);
    for (std::uint32_t i = 0; i <= header_.port_mask; ++i) {
      const port_row& row = ports_[(start + i) & header_.port_mask];
      if (row.used == 0) break;
      if (row.vip == vip.id && row.port == port) return service(row.service);
    }
    const std::uint32_t range_count = once(vip.range_count);
    const std::uint32_t range_first = once(vip.range_first);
    if (range_count != 0 && range_first < header_.range_count &&
        range_count <= header_.range_count - range_first) {
      // Binary search for the last range that starts at or below the port.
      const range_row* first = ranges_ + range_first;
      std::uint32_t low = 0;
      std::uint32_t high = range_count;
      while (low < high) {
        const std::uint32_t middle = (low + high) / 2;
        if (first[middle].first <= port) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      if (low > 0 && port <= first[low - 1].last) return service(first[low - 1].service);
    }
    return service(vip.any_service);
  }

  // service() and backend() return null for a number that is out of bounds or not in use.
  [[nodiscard]] const service_row* service(service_id id) const noexcept {
    const auto i = static_cast<std::uint32_t>(id);
    if (i >= header_.service_count) return nullptr;
    const service_row& row = services_[i];
    return row.self == id ? &row : nullptr;
  }
  [[nodiscard]] const backend_row* backend(backend_ref ref) const noexcept {
    const std::uint32_t i = ref.index();
    if (i >= header_.backend_count) return nullptr;
    const backend_row& row = backends_[i];
    return (row.flags & backend_in_use) != 0 && row.incarnation == ref.incarnation() ? &row
                                                                                     : nullptr;
  }
  void prefetch_backend(backend_ref ref) const noexcept {
    __builtin_prefetch(backends_ + (ref.index() < header_.backend_count ? ref.index() : 0));
  }
  // backend_at() returns the row by number, in use or not; null if out of bounds.
  [[nodiscard]] const backend_row* backend_at(std::uint32_t index) const noexcept {
    return index < header_.backend_count ? backends_ + index : nullptr;
  }
  // member() returns the backend at a position of a service's members (none: impossible).
  [[nodiscard]] backend_ref member(const service_row& s, std::uint32_t position) const noexcept {
    const std::uint32_t count = once(s.member_count);
    const std::uint32_t first = once(s.member_first);
    if (position >= count || first > header_.member_count || count > header_.member_count - first)
      return {};
    return members_[first + position];
  }
  // table_of() and members_of() are a service's whole table and members; empty: impossible.
  [[nodiscard]] slot_table table_of(const service_row& s) const noexcept {
    const std::uint32_t size = once(s.table_size);
    const std::uint32_t count = once(s.member_count);
    const std::uint64_t offset = once(s.table_offset);
    if (size > most_slots || offset < arena_first_ || offset > arena_last_ || (offset & 1) != 0 ||
        table_bytes(size, count) > arena_last_ - offset)
      return {};
    return {segment_ + offset, size, count};
  }
  [[nodiscard]] std::span<const backend_ref> members_of(const service_row& s) const noexcept {
    const std::uint32_t count = once(s.member_count);
    const std::uint32_t first = once(s.member_first);
    if (first > header_.member_count || count > header_.member_count - first) return {};
    return {members_ + first, count};
  }
  // choose() returns the backend that the scheduler's table names for a flow hash.
  [[nodiscard]] backend_ref choose(const service_row& s, std::uint64_t flow_hash) const noexcept {
    const slot_table table = table_of(s);
    return table.empty() ? backend_ref{}
                         : member(s, position_at(table.of(flow_hash), table.wide()));
  }
  // in_slot() returns the backend that a slot of the table names; any number.
  [[nodiscard]] backend_ref in_slot(const service_row& s, std::uint32_t slot) const noexcept {
    const slot_table table = table_of(s);
    return slot < table.size() ? member(s, table[slot]) : backend_ref{};
  }

  // options() returns what a service asks for besides its row; null if it is not in use.
  [[nodiscard]] const service_options* options(service_id id) const noexcept {
    const service_row* s = service(id);
    return s == nullptr ? nullptr : options_ + (s - services_);
  }
  // in_list() tells whether an address is in a prefix list; false when there is no such
  // list, or when it does not lie inside the arena.
  [[nodiscard]] bool in_list(std::uint16_t list, const ip_address& address) const noexcept {
    if (list >= header_.list_count) return false;
    prefix_list l;
    std::memcpy(&l, lists_ + list, sizeof l);
    return l.holds(segment_, arena_first_, arena_last_, address);
  }
  // pool() returns the addresses that full-nat takes as sources.
  [[nodiscard]] std::span<const ip_address> pool() const noexcept {
    return {pool_, header_.pool_count};
  }

  [[nodiscard]] const vip_row& vip_at(std::uint32_t place) const noexcept {
    return vips_[place & header_.vip_mask];
  }
  [[nodiscard]] const service_cold* cold(service_id id) const noexcept {
    const auto i = static_cast<std::uint32_t>(id);
    return i < header_.service_count ? service_colds_ + i : nullptr;
  }
  [[nodiscard]] const backend_cold* cold(backend_ref ref) const noexcept {
    return ref.index() < header_.backend_count ? backend_colds_ + ref.index() : nullptr;
  }

 private:
  // once() reads a number of a row exactly once: whoever can write the segment may change it
  // between the check and the use. A plain load in the machine's eyes.
  template <class T>
  static T once(const T& field) noexcept {
    return __atomic_load_n(&field, __ATOMIC_RELAXED);
  }

  const std::byte* segment_{nullptr};
  const vip_row* vips_{nullptr};
  const port_row* ports_{nullptr};
  const range_row* ranges_{nullptr};
  const service_row* services_{nullptr};
  const backend_row* backends_{nullptr};
  const backend_ref* members_{nullptr};
  const service_cold* service_colds_{nullptr};
  const backend_cold* backend_colds_{nullptr};
  const service_options* options_{nullptr};
  const prefix_list* lists_{nullptr};
  const ip_address* pool_{nullptr};
  std::uint64_t arena_first_{0};
  std::uint64_t arena_last_{0};
  generation_header header_{};
};

}  // namespace sluice::abi
