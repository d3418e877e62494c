// SPDX-License-Identifier: Apache-2.0
// Layout of a worker's connection table file. The worker maps it read-write; the
// control plane maps it read-only to list connections (a torn entry shows a
// connection that is just changing, never anything outside the file).
//
//   connection_header | IPv4 buckets | IPv6 buckets
//
// A bucket is one cache line: 4 IPv4 entries of 16 bytes or 2 IPv6 entries of 32.
// `word` of an entry, from the lowest bit:
//   vip 16 | backend_ref 24 | last seen 16 (seconds of the table's clock, wraps) |
//   state 4 | spare 4
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "dataplane/abi/ids.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::abi {

struct connection_word {
  std::uint64_t value{0};

  static constexpr unsigned backend_shift = 16;
  static constexpr unsigned time_shift = backend_shift + backend_ref::bits;
  static constexpr unsigned state_shift = time_shift + 16;
  static constexpr unsigned spare_shift = state_shift + 4;
  static constexpr std::uint64_t spare_mask = 0xfull << spare_shift;

  static constexpr connection_word make(vip_id vip, backend_ref backend, std::uint16_t seen,
                                        connection_state state) noexcept {
    return {static_cast<std::uint64_t>(vip) | std::uint64_t{backend.value} << backend_shift |
            std::uint64_t{seen} << time_shift | static_cast<std::uint64_t>(state) << state_shift};
  }
  [[nodiscard]] constexpr vip_id vip() const noexcept {
    return static_cast<vip_id>(value & 0xffff);
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
inline constexpr unsigned entries6_per_bucket = cache_line / sizeof(connection_entry6);

struct alignas(cache_line) connection_header {
  std::uint64_t magic;
  std::uint32_t version;  // abi_version
  std::uint32_t worker;
  std::uint64_t size;      // bytes of the whole file
  std::uint64_t instance;  // random, new with every file
  std::uint64_t buckets4;
  std::uint64_t buckets6;
  std::uint64_t offset4;  // bytes from the file's start
  std::uint64_t offset6;
  std::uint64_t secret[2];      // of the bucket hash; the file is readable by its owner only
  std::uint64_t clock_base_ns;  // CLOCK_MONOTONIC when the table's clock was 0
  std::uint64_t reserved0[5];
};
static_assert(sizeof(connection_header) == 128);

}  // namespace sluice::abi
