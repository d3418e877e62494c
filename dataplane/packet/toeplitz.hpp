// SPDX-License-Identifier: Apache-2.0
// The Toeplitz hash of receive-side scaling, in software: the same number that a NIC with
// the same key computes ("RSS hashing types" of the NDIS documentation; DPDK rte_thash.h).
// The input is source address, destination address, source port and destination port, as
// they are in the packet.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/abi/net_types.hpp"

namespace sluice::wire {

// 40 bytes are what IPv6 addresses and ports need; NICs that want 52 do not use the rest.
using rss_key = std::array<std::uint8_t, 40>;

class toeplitz {
 public:
  explicit constexpr toeplitz(const rss_key& key) noexcept {
    // window(bit) is the 32 bits of the key from that bit on.
    const auto window = [&key](std::size_t bit) {
      std::uint64_t eight = 0;
      for (std::size_t i = 0; i < 5; ++i)
        eight = eight << 8 | (bit / 8 + i < key.size() ? key[bit / 8 + i] : 0u);
      return static_cast<std::uint32_t>(eight >> (8 - bit % 8));
    };
    for (std::size_t nibble = 0; nibble < table_.size(); ++nibble)
      for (std::size_t value = 0; value < 16; ++value)
        for (std::size_t bit = 0; bit < 4; ++bit)
          if ((value & (8u >> bit)) != 0) table_[nibble][value] ^= window(4 * nibble + bit);
  }

  // hash() of at most 36 bytes; more are not looked at.
  [[nodiscard]] constexpr std::uint32_t hash(std::span<const std::uint8_t> input) const noexcept {
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < input.size() && i < table_.size() / 2; ++i)
      out ^= table_[2 * i][input[i] >> 4] ^ table_[2 * i + 1][input[i] & 15];
    return out;
  }

 private:
  // Half bytes: 4.6 KB, which new connections alone need; whole ones would be 37.
  std::array<std::array<std::uint32_t, 16>, 72> table_{};
};

}  // namespace sluice::wire
