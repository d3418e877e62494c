// SPDX-License-Identifier: Apache-2.0
// The two kinds of bucket and how a key is looked for in one.
#pragma once

#include <cstdint>
#include <cstring>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/bucket_hash.hpp"

namespace sluice::connection {

// ipv4: four entries in one cache line.
struct ipv4 {
  using key_type = key4;
  using entry = abi::connection_entry4;
  static constexpr unsigned per_bucket = abi::entries4_per_bucket;
  struct alignas(cache_line) bucket {
    entry entries[per_bucket];
  };

  static void prefetch(const bucket* b) noexcept { __builtin_prefetch(b); }
  static bool matches(const entry& e, const key4& k) noexcept {
    std::uint64_t tuple;
    std::memcpy(&tuple, &e.source, 8);
    return ((tuple ^ k.tuple) | ((e.word.value ^ k.vip_bits) & abi::connection_word::vip_mask)) ==
           0;
  }
  static abi::connection_word* find(bucket& b, const key4& k) noexcept {
    for (entry& e : b.entries)
      if (matches(e, k)) return &e.word;
    return nullptr;
  }
  static key4 key_of(const entry& e) noexcept {
    std::uint64_t tuple;
    std::memcpy(&tuple, &e.source, 8);
    return {tuple, e.word.value & abi::connection_word::vip_mask};
  }
  static void set_key(entry& e, const key4& k) noexcept { std::memcpy(&e.source, &k.tuple, 8); }
};

// ipv6: four entries in two cache lines.
struct ipv6 {
  using key_type = key6;
  using entry = abi::connection_entry6;
  static constexpr unsigned per_bucket = abi::entries6_per_bucket;
  struct alignas(cache_line) bucket {
    entry entries[per_bucket];
  };

  static void prefetch(const bucket* b) noexcept {
    for (std::size_t i = 0; i < sizeof(bucket); i += cache_line)
      __builtin_prefetch(reinterpret_cast<const std::byte*>(b) + i);
  }
  static bool matches(const entry& e, const key6& k) noexcept {
    std::uint64_t ports;
    std::memcpy(&ports, &e.source_port, 8);
    return ((e.source_low ^ k.source_low) | (e.source_high ^ k.source_high) | (ports ^ k.ports) |
            ((e.word.value ^ k.vip_bits) & abi::connection_word::vip_mask)) == 0;
  }
  static abi::connection_word* find(bucket& b, const key6& k) noexcept {
    for (entry& e : b.entries)
      if (matches(e, k)) return &e.word;
    return nullptr;
  }
  static key6 key_of(const entry& e) noexcept {
    std::uint64_t ports;
    std::memcpy(&ports, &e.source_port, 8);
    return {e.source_high, e.source_low, ports, e.word.value & abi::connection_word::vip_mask};
  }
  static void set_key(entry& e, const key6& k) noexcept {
    e.source_high = k.source_high;
    e.source_low = k.source_low;
    std::memcpy(&e.source_port, &k.ports, 8);
  }
};

}  // namespace sluice::connection
