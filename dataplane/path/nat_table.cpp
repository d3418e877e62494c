// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/nat_table.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "dataplane/abi/flow_hash.h"
#include "dataplane/abi/huge_pages.hpp"
#include "dataplane/connection/private_file.hpp"

namespace sluice {

using abi::connection_state;
using abi::counter_id;

namespace {

// How many source ports are tried for a new session. Taken are only those that a session to
// the same backend has: with one in two taken, 64 fail once in 2^64.
constexpr unsigned port_attempts = 64;
// How many sessions a newcomer looks at for one that gives way.
constexpr unsigned victims_looked_at = 64;
constexpr std::uint64_t sweep_round_ns = 10'000'000'000;
constexpr std::uint32_t longest_sweep = 64;  // per call: about 2 us when cold

std::uint64_t mixed(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using wide = unsigned __int128;
  const wide product = static_cast<wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

bool same(const wire::flow_ends& a, const wire::flow_ends& b) noexcept {
  return a.source == b.source && a.destination == b.destination && a.source_port == b.source_port &&
         a.destination_port == b.destination_port;
}

}  // namespace

// lint: cold begin
nat_table::nat_table(const options& o) noexcept
    : capacity_{std::clamp<std::uint32_t>(o.sessions, 16, max_sessions)},
      bucket_count_{std::max<std::uint32_t>(capacity_ / 2, 2)},
      workers_{std::clamp<unsigned>(o.workers, 1, abi::max_workers)} {
  const unsigned worker = o.worker % workers_;
  port_base_ = first_port + (worker + workers_ - first_port % workers_) % workers_;
  port_count_ = (0xffffu - port_base_) / workers_ + 1;
  std::uint64_t x = o.secret[0];
  for (std::uint64_t& w : secret_) w = sluice_mix64((x += 0x9e3779b97f4a7c15ull) ^ o.secret[1]);
  next_port_ = static_cast<unsigned>(secret_[3] % port_count_);

  const bool in_file = !o.memory.empty();
  if (in_file && o.memory.size() < capacity_) return;
  of_sessions_ = in_file ? 0 : std::size_t{capacity_} * sizeof(nat_session);
  const std::size_t of_buckets = std::size_t{bucket_count_} * sizeof(bucket);
  const std::size_t hints = std::bit_ceil(std::size_t{capacity_} / 4);  // half full at most
  hint_mask_ = hints - 1;
  bytes_ = of_sessions_ + of_buckets + hints * sizeof(hint_line);
  void* memory = abi::map_aligned(bytes_, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  if (memory == MAP_FAILED) return;
  ::madvise(memory, bytes_, MADV_HUGEPAGE);
  if (o.numa_node >= 0) connection::prefer_node(memory, bytes_, o.numa_node);
  mapping_ = memory;
  sessions_ = in_file ? o.memory.data() : static_cast<nat_session*>(memory);
  room_ = in_file ? 0 : capacity_;
  buckets_ = reinterpret_cast<bucket*>(static_cast<std::byte*>(memory) + of_sessions_);
  hints_ =
      reinterpret_cast<hint_line*>(static_cast<std::byte*>(memory) + of_sessions_ + of_buckets);
}

void nat_table::provide() noexcept {
  if (provided_ || used() == 0) return;
  provided_ = true;
  // The sessions, if they are here, come first.
  const std::size_t before = of_sessions_ / 4096 * 4096;
  abi::provide(static_cast<std::byte*>(mapping_) + before, bytes_ - before);
}

nat_table::~nat_table() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_);
}

void nat_table::clear() noexcept {
  for (std::uint32_t i = 0; i < used(); ++i)
    if (sessions_[i].state != connection_state::free) close(sessions_[i]);
}

bool nat_table::consistent() const noexcept {
  std::uint32_t live = 0;
  std::uint32_t entries = 0;
  for (std::uint32_t i = 0; i < used(); ++i) {
    const nat_session& s = sessions_[i];
    if (s.state == connection_state::free) continue;
    ++live;
    if (find(forward, name(forward, s), s.protocol) != &s) return false;
    if (find(reply, name(reply, s), s.protocol) != &s) return false;
  }
  for (std::uint32_t b = 0; b < bucket_count_; ++b)
    for (const auto& e : buckets_[b].entries) entries += e.load(std::memory_order_relaxed) != 0;
  return live == size_ && entries == 2 * live;
}
// lint: cold end

nat_table::place nat_table::place_of(direction d, const wire::flow_ends& ends,
                                     std::uint8_t protocol) const noexcept {
  const std::uint64_t rest = std::uint64_t{ends.source_port.raw()} |
                             std::uint64_t{ends.destination_port.raw()} << 16 |
                             std::uint64_t{protocol} << 32 | std::uint64_t{d} << 40;
  const std::uint64_t a = mixed(ends.source.high() ^ secret_[0], ends.source.low() ^ secret_[1]);
  const std::uint64_t b =
      mixed(ends.destination.high() ^ secret_[2], ends.destination.low() ^ secret_[3]);
  const std::uint64_t h = mixed(a ^ rest ^ secret_[1], b ^ secret_[2]);
  const std::uint64_t g = sluice_mix64(h ^ secret_[0]);
  const auto at = [this](std::uint64_t half) {
    return buckets_ + ((half & 0xffffffff) * bucket_count_ >> 32);
  };
  return {at(h), at(h >> 32), (g >> 33 << 33) | std::uint64_t{d} << 32};
}

nat_session* nat_table::find(direction d, const wire::flow_ends& ends,
                             std::uint8_t protocol) const noexcept {
  const place at = place_of(d, ends, protocol);
  for (const bucket* b : {at.first, at.second}) {
    for (const auto& e : b->entries) {
      const std::uint64_t entry = e.load(std::memory_order_relaxed);
      if ((entry & ~0xffffffffull) != at.tag || (entry & 0xffffffff) == 0) continue;
      nat_session& s = sessions_[(entry & 0xffffffff) - 1];
      if (s.protocol == protocol && same(name(d, s), ends)) return &s;
    }
  }
  return nullptr;
}

bool nat_table::holds(direction d, const wire::flow_ends& ends,
                      std::uint8_t protocol) const noexcept {
  const place at = place_of(d, ends, protocol);
  for (const bucket* b : {at.first, at.second})
    for (const auto& e : b->entries) {
      const std::uint64_t entry = e.load(std::memory_order_relaxed);
      if ((entry & ~0xffffffffull) == at.tag && (entry & 0xffffffff) != 0) return true;
    }
  return false;
}

bool nat_table::link(direction d, const wire::flow_ends& ends, std::uint8_t protocol,
                     std::uint32_t number) noexcept {
  const place at = place_of(d, ends, protocol);
  const auto used = [](const bucket& b) {
    return std::count_if(b.entries.begin(), b.entries.end(),
                         [](const auto& e) { return e.load(std::memory_order_relaxed) != 0; });
  };
  bucket& b = used(*at.second) < used(*at.first) ? *at.second : *at.first;
  for (auto& e : b.entries) {
    if (e.load(std::memory_order_relaxed) != 0) continue;
    e.store(at.tag | (std::uint64_t{number} + 1), std::memory_order_relaxed);
    return true;
  }
  return false;
}

void nat_table::unlink(direction d, const wire::flow_ends& ends, std::uint8_t protocol,
                       std::uint32_t number) noexcept {
  const place at = place_of(d, ends, protocol);
  for (bucket* b : {at.first, at.second})
    for (auto& e : b->entries)
      if (e.load(std::memory_order_relaxed) == (at.tag | (std::uint64_t{number} + 1)))
        return e.store(0, std::memory_order_relaxed);
}

// take_source() finds an address of the pool and a port that no session to this backend has,
// or (victim_) one of a session that gives way to a newcomer.
bool nat_table::take_source(nat_session& s, std::uint16_t now) noexcept {
  victim_ = nullptr;
  const unsigned family = s.vip.is_v4() ? 0 : 1;
  const unsigned addresses = pool_size_[family];
  if (addresses == 0) return false;
  unsigned victim_port = 0;
  unsigned port = next_port();
  unsigned victim_address = 0;
  for (unsigned i = 0; i < port_attempts; ++i) {
    if (next_address_[family] >= addresses) {  // one port of every address, then the next
      next_address_[family] = 0;
      if (++port >= port_count_) port = 0;
      next_port_.store(port, std::memory_order_relaxed);
    }
    s.local = pool_[family][next_address_[family]];
    s.local_port = be16{static_cast<std::uint16_t>(port_base_ + port * workers_)};
    nat_session* const other = find(reply, name(reply, s), s.protocol);
    if (other == nullptr) {
      ++next_address_[family];
      victim_ = nullptr;
      return true;
    }
    if (victim_ == nullptr && (expired(*other, now) || other->state <= connection_state::syn)) {
      victim_ = other;
      victim_port = port;
      victim_address = next_address_[family];
    }
    ++next_address_[family];
  }
  if (victim_ != nullptr) {
    next_port_.store(victim_port, std::memory_order_relaxed);
    next_address_[family] = victim_address;
  }
  return false;
}

nat_session* nat_table::enter(const wire::flow_ends& ends, std::uint8_t protocol,
                              const ip_address& server, be16 port, bool full, std::uint16_t now,
                              counter_id& why) noexcept {
  victim_ = nullptr;
  const std::uint32_t number = free_ != none ? free_ : used();
  if (number >= room()) {
    why = counter_id::drop_nat_no_room;
    return nullptr;
  }
  nat_session& s = sessions_[number];
  const std::uint32_t next = s.next_free;
  s = {};
  s.next_free = next;
  s.client = s.local = ends.source;
  s.client_port = s.local_port = ends.source_port;
  s.vip = ends.destination;
  s.vip_port = ends.destination_port;
  s.server = server;
  s.server_port = port;
  s.protocol = protocol;
  s.flags = full ? nat_full : 0;
  if (full) {
    if (!take_source(s, now)) {
      why = counter_id::drop_nat_no_port;
      return nullptr;
    }
  } else if (find(reply, name(reply, s), protocol) != nullptr) {
    // Two VIPs, or ports of one, share a backend's port, and the client uses one port for
    // both: a reply could be of either.
    why = counter_id::drop_nat_no_port;
    return nullptr;
  }
  if (!link(forward, name(forward, s), protocol, number)) {
    why = counter_id::drop_nat_no_room;
    return nullptr;
  }
  if (!link(reply, name(reply, s), protocol, number)) {
    unlink(forward, name(forward, s), protocol, number);
    why = counter_id::drop_nat_no_room;
    return nullptr;
  }
  if (free_ != none) {
    free_ = next;
  } else {
    high_water_.store(number + 1, std::memory_order_relaxed);
  }
  ++size_;
  return &s;
}

void nat_table::close(nat_session& s) noexcept {
  const std::uint32_t number = number_of(s);
  unlink(forward, name(forward, s), s.protocol, number);
  unlink(reply, name(reply, s), s.protocol, number);
  set_state(s, connection_state::free);
  s.next_free = free_;
  free_ = number;
  --size_;
}

nat_session* nat_table::least_valuable(std::uint16_t now) noexcept {
  nat_session* worst = nullptr;
  const std::uint32_t all = used();
  for (unsigned i = 0; i < std::min(victims_looked_at, all); ++i) {
    nat_session& s = sessions_[hand_];
    if (++hand_ >= all) hand_ = 0;
    if (expired(s, now)) return &s;
    if (s.state >= connection_state::closing) continue;
    if (worst == nullptr || s.state < worst->state) worst = &s;
  }
  return worst;
}

std::uint32_t nat_table::due(std::uint64_t now_ns) noexcept {
  if (swept_ns_ == 0 || now_ns < swept_ns_) swept_ns_ = now_ns;
  const std::uint64_t elapsed = std::min(now_ns - swept_ns_, sweep_round_ns);
  const std::uint64_t all = used();
  if (all == 0 || (elapsed < 1'000'000 && carry_ < sweep_round_ns)) return 0;
  swept_ns_ = now_ns;
  // Sessions times nanoseconds; a worker that was stopped for long owes one round at most.
  carry_ = std::min(carry_ + all * elapsed, all * sweep_round_ns);
  const auto n =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(carry_ / sweep_round_ns, longest_sweep));
  carry_ -= n * sweep_round_ns;
  return n;
}

void nat_table::set_pool(std::span<const ip_address> pool) noexcept {
  pool_size_ = {};
  for (const ip_address& shared : pool.first(std::min(pool.size(), pool_[0].size()))) {
    const ip_address a = shared;
    const unsigned family = a.is_v4() ? 0 : 1;
    pool_[family][pool_size_[family]++] = a;
  }
}

bool nat_table::in_pool(const ip_address& a) const noexcept {
  const unsigned family = a.is_v4() ? 0 : 1;
  const auto begin = pool_[family].begin();
  return std::find(begin, begin + pool_size_[family], a) != begin + pool_size_[family];
}

}  // namespace sluice
