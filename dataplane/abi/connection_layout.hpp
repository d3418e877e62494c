// SPDX-License-Identifier: Apache-2.0
// Layout of a worker's connection table file, and how to read it from outside. The
// worker maps it read-write; the control plane maps it read-only to list connections
// (connection_reader). A file that is only zeros after its header is an empty table.
//
//   connection_header | IPv4 buckets | IPv6 buckets
//
// A bucket is 4 IPv4 entries of 16 bytes (one cache line) or 4 IPv6 entries of 32 (two).
// `word` of an entry, from the lowest bit:
//   vip 16 (complemented, so that zero is no VIP) | backend_ref 24 |
//   last seen 16 (seconds of the table's clock, wraps) | state 4 | spare 4
// The highest of the spare bits says that the entry is in its secondary bucket. The other three
// belong to the bucket, not to the entry: together they count the
// entries that would live here but had to go to their secondary bucket (overflow).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/fnv.hpp"
#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::abi {

struct connection_word {
  std::uint64_t value{0};

  static constexpr unsigned backend_shift = 16;
  static constexpr unsigned time_shift = backend_shift + backend_ref::bits;
  static constexpr unsigned state_shift = time_shift + 16;
  static constexpr unsigned spare_shift = state_shift + 4;
  static constexpr std::uint64_t spare_mask = 0xfull << spare_shift;
  static constexpr std::uint64_t vip_mask = 0xffff;

  // vip_bits() is what the lowest 16 bits hold for a VIP.
  static constexpr std::uint16_t vip_bits(vip_id vip) noexcept {
    return static_cast<std::uint16_t>(~static_cast<unsigned>(vip));
  }

  static constexpr connection_word make(vip_id vip, backend_ref backend, std::uint16_t seen,
                                        connection_state state) noexcept {
    return {static_cast<std::uint64_t>(vip_bits(vip)) |
            std::uint64_t{backend.value} << backend_shift | std::uint64_t{seen} << time_shift |
            static_cast<std::uint64_t>(state) << state_shift};
  }
  [[nodiscard]] constexpr vip_id vip() const noexcept {
    return static_cast<vip_id>(~value & vip_mask);
  }
  [[nodiscard]] constexpr backend_ref backend() const noexcept {
    return {static_cast<std::uint32_t>(value >> backend_shift) & backend_ref::none_value};
  }
  [[nodiscard]] constexpr std::uint16_t seen() const noexcept {
    return static_cast<std::uint16_t>(value >> time_shift);
  }
  [[nodiscard]] constexpr connection_state state() const noexcept {
    return static_cast<connection_state>((value >> state_shift) & 0xf);
  }
  constexpr bool operator==(const connection_word&) const noexcept = default;
  // with_*() return the word with one field changed.
  [[nodiscard]] constexpr connection_word with_backend(backend_ref b) const noexcept {
    constexpr std::uint64_t mask = std::uint64_t{backend_ref::none_value} << backend_shift;
    return {(value & ~mask) | std::uint64_t{b.value} << backend_shift};
  }
  [[nodiscard]] constexpr connection_word with_seen(std::uint16_t seen) const noexcept {
    return {(value & ~(0xffffull << time_shift)) | std::uint64_t{seen} << time_shift};
  }
  [[nodiscard]] constexpr connection_word with_state(connection_state s) const noexcept {
    return {(value & ~(0xfull << state_shift)) | static_cast<std::uint64_t>(s) << state_shift};
  }
};
static_assert(connection_word::spare_shift + 4 == 64);

// Addresses and ports as they are in the packet (network order, raw).
struct connection_entry4 {
  std::uint32_t source;
  std::uint16_t source_port;
  std::uint16_t destination_port;
  connection_word word;
};
static_assert(sizeof(connection_entry4) == 16);

struct connection_entry6 {
  std::uint64_t source_high;
  std::uint64_t source_low;
  std::uint16_t source_port;
  std::uint16_t destination_port;
  std::uint32_t reserved0;
  connection_word word;
};
static_assert(sizeof(connection_entry6) == 32);

inline constexpr unsigned entries4_per_bucket = cache_line / sizeof(connection_entry4);
inline constexpr unsigned entries6_per_bucket = 2 * cache_line / sizeof(connection_entry6);

struct alignas(cache_line) connection_header {
  std::uint64_t magic;     // connection_magic; written last by whoever creates the file
  std::uint32_t version;   // abi_version
  std::uint32_t worker;    // number of the worker that owns it
  std::uint64_t size;      // bytes of the whole file
  std::uint64_t instance;  // random, new with every file
  std::uint64_t buckets4;
  std::uint64_t buckets6;
  std::uint64_t offset4;  // bytes from the file's start, multiples of the cache line
  std::uint64_t offset6;
  std::uint64_t secret[2];      // of the bucket hash; the file is readable by its owner only
  std::uint64_t clock_base_ns;  // CLOCK_MONOTONIC when the table's clock was 0
  std::uint64_t boot_id[2];     // of the boot that the clock belongs to
  std::uint64_t checksum;       // connection_checksum()
  // Written while the table is in use, so that the next data plane can tell whether it may
  // take the table over.
  std::uint64_t config_instance;  // segment whose rows the entries name; 0: none yet
  std::uint32_t workers;          // how many share the connections; under the checksum, too
  std::uint32_t alive_s;          // CLOCK_MONOTONIC, seconds, when its owner last lived
};
static_assert(sizeof(connection_header) == 128 && offsetof(connection_header, secret) == 64);
static_assert(std::has_unique_object_representations_v<connection_header>);

// connection_checksum() covers what does not change while the table is in use. FNV-1a.
inline std::uint64_t connection_checksum(const connection_header& header) noexcept {
  connection_header h = header;
  h.magic = connection_magic;  // written last
  h.checksum = h.config_instance = h.alive_s = 0;
  fnv1a hash;
  hash.add_object(h);
  return hash.value();
}

inline constexpr std::uint64_t max_connection_buckets = std::uint64_t{1} << 32;

// connection_layout: where everything is, from the numbers of buckets alone.
struct connection_layout {
  std::uint64_t buckets4, buckets6, offset4, offset6, total;

  // of() refuses (total 0) fewer than 2 or more than 2^32 buckets of a kind.
  static constexpr connection_layout of(std::uint64_t buckets4, std::uint64_t buckets6) noexcept {
    if (buckets4 < 2 || buckets6 < 2 || buckets4 > max_connection_buckets ||
        buckets6 > max_connection_buckets)
      return {};
    connection_layout l{buckets4, buckets6, 4096, 0, 0};
    l.offset6 = (l.offset4 + buckets4 * entries4_per_bucket * sizeof(connection_entry4) + 4095) /
                4096 * 4096;
    l.total = (l.offset6 + buckets6 * entries6_per_bucket * sizeof(connection_entry6) + 4095) /
              4096 * 4096;
    return l;
  }
  static constexpr std::uint64_t roomy_up_to = std::uint64_t{2} << 20;  // bytes of the file
  // for_connections() sizes the table so that these many fill 80% of it. One that fits into a huge
  // page with twice the buckets has these: in huge pages that memory is its own anyway, elsewhere
  // it is a megabyte at most, and at half the load next to no connection is in its secondary
  // bucket, where to look has its price.
  static constexpr connection_layout for_connections(std::uint64_t connections4,
                                                     std::uint64_t connections6) noexcept {
    const auto buckets = [](std::uint64_t connections, unsigned per_bucket) {
      if (connections > (std::uint64_t{1} << 34)) return std::uint64_t{0};
      const std::uint64_t n = (connections * 5 + 4 * per_bucket - 1) / (4 * per_bucket);
      return n < 2 ? std::uint64_t{2} : n;
    };
    const std::uint64_t buckets4 = buckets(connections4, entries4_per_bucket);
    const std::uint64_t buckets6 = buckets(connections6, entries6_per_bucket);
    const connection_layout roomy = of(2 * buckets4, 2 * buckets6);
    return roomy.total != 0 && roomy.total <= roomy_up_to ? roomy : of(buckets4, buckets6);
  }
};

// connection_view: one entry as a reader outside sees it.
struct connection_view {
  ip_address source;
  be16 source_port;
  be16 destination_port;
  vip_id vip;
  backend_ref backend;
  connection_state state;
  std::uint16_t seen;  // seconds of the table's clock
};

// connection_reader: lists a table through a (read-only) mapping while its worker goes
// on writing. Nothing in the file is trusted: a false header is refused and no number
// in an entry is used as an index. An entry that changes while it is read is read
// again; one that keeps changing is left out.
class connection_reader {
 public:
  enum class status { ok, too_small, not_a_table, other_version, bad_layout };

  // open() checks `bytes` (the whole file, at least 64-byte aligned as mappings are).
  static status open(const std::byte* bytes, std::uint64_t size, connection_reader& out) noexcept {
    out = connection_reader{};
    connection_header h;
    if (size < sizeof h) return status::too_small;
    std::memcpy(&h, bytes, sizeof h);
    if (h.magic != connection_magic) return status::not_a_table;
    if (h.version != abi_version) return status::other_version;
    const connection_layout l = connection_layout::of(h.buckets4, h.buckets6);
    if (l.total == 0 || l.offset4 != h.offset4 || l.offset6 != h.offset6 || l.total > h.size)
      return status::bad_layout;
    if (h.size > size) return status::too_small;
    out.bytes_ = bytes;
    out.layout_ = l;
    out.worker_ = h.worker;
    out.clock_base_ns_ = h.clock_base_ns;
    return status::ok;
  }

  [[nodiscard]] std::uint32_t worker() const noexcept { return worker_; }
  [[nodiscard]] std::uint64_t capacity4() const noexcept {
    return layout_.buckets4 * entries4_per_bucket;
  }
  [[nodiscard]] std::uint64_t capacity6() const noexcept {
    return layout_.buckets6 * entries6_per_bucket;
  }
  // idle() returns the seconds since an entry was last seen. now_ns: CLOCK_MONOTONIC.
  [[nodiscard]] std::uint16_t idle(const connection_view& c, std::uint64_t now_ns) const noexcept {
    return static_cast<std::uint16_t>((now_ns - clock_base_ns_) / 1'000'000'000u - c.seen);
  }

  // for_each() calls fn(const connection_view&) for every entry; fn returns false to stop.
  template <class Function>
  void for_each(Function&& fn) const {
    for_each(0, capacity4() + capacity6(), fn);
  }
  // The same for `count` places from number `first` on: IPv4's, then IPv6's.
  template <class Function>
  void for_each(std::uint64_t first, std::uint64_t count, Function&& fn) const {
    const std::uint64_t places = capacity4() + capacity6();
    if (first > places) return;
    const std::uint64_t last = count < places - first ? first + count : places;
    const auto* e4 = reinterpret_cast<const connection_entry4*>(bytes_ + layout_.offset4);
    for (std::uint64_t i = first; i < last && i < capacity4(); ++i) {
      connection_entry4 copy;
      if (!stable_copy(e4[i], copy)) continue;
      if (!fn(view(ip_address::v4(be32::from_raw(copy.source)), copy.source_port,
                   copy.destination_port, copy.word)))
        return;
    }
    const auto* e6 = reinterpret_cast<const connection_entry6*>(bytes_ + layout_.offset6);
    for (std::uint64_t i = first > capacity4() ? first : capacity4(); i < last; ++i) {
      connection_entry6 copy;
      if (!stable_copy(e6[i - capacity4()], copy)) continue;
      ip_address source;
      std::memcpy(source.bytes.data(), &copy.source_high, 8);
      std::memcpy(source.bytes.data() + 8, &copy.source_low, 8);
      if (!fn(view(source, copy.source_port, copy.destination_port, copy.word))) return;
    }
  }

 private:
  static std::uint64_t load(const std::uint64_t& v) noexcept {
    return __atomic_load_n(&v, __ATOMIC_ACQUIRE);  // std::atomic_ref takes no const (C++20)
  }
  // stable_copy() is false for a free entry. The worker writes the word last when it
  // enters a connection and clears it first when it removes one.
  template <class Entry>
  static bool stable_copy(const Entry& from, Entry& to) noexcept {
    for (int attempt = 0; attempt < 4; ++attempt) {
      const std::uint64_t before = load(from.word.value);
      if (connection_word{before}.state() == connection_state::free) return false;
      std::memcpy(&to, &from, sizeof to);
      __atomic_thread_fence(__ATOMIC_ACQUIRE);
      if (((load(from.word.value) ^ before) & ~connection_word::spare_mask) == 0) {
        to.word.value = before;
        return true;
      }
    }
    return false;
  }
  static connection_view view(const ip_address& source, std::uint16_t source_port,
                              std::uint16_t destination_port, connection_word w) noexcept {
    return {source,
            be16::from_raw(source_port),
            be16::from_raw(destination_port),
            w.vip(),
            w.backend(),
            w.state(),
            w.seen()};
  }

  const std::byte* bytes_{nullptr};
  connection_layout layout_{};
  std::uint32_t worker_{0};
  std::uint64_t clock_base_ns_{0};
};

}  // namespace sluice::abi
