// SPDX-License-Identifier: Apache-2.0
// flow_owner: which worker deals with a flow, whichever it came to (`steering: owner`). The
// function is that of a NIC whose RSS has our key and the usual indirection table, so that
// there no packet moves. One object for all workers; read-only.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/toeplitz.hpp"

namespace sluice {

class flow_owner {
 public:
  // Entries of the indirection table: as many as a NIC has at least.
  static constexpr unsigned entries = 128;

  constexpr flow_owner(const wire::rss_key& key, unsigned workers) noexcept
      : hash_{key}, workers_{workers == 0 ? 1 : workers} {}

  // key_of() is the RSS key of a cluster: not known to those who do not know its seed, the
  // same after a restart.
  static constexpr wire::rss_key key_of(std::uint64_t seed) noexcept {
    wire::rss_key key{};
    for (std::uint8_t& byte : key) {
      // splitmix64 (Vigna)
      std::uint64_t z = seed += 0x9e3779b97f4a7c15u;
      z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
      z = (z ^ z >> 27) * 0x94d049bb133111ebu;
      byte = static_cast<std::uint8_t>((z ^ z >> 31) >> 56);
    }
    return key;
  }

  // of() takes addresses and ports as in the packet, bytes of each address: 4 or 16.
  [[nodiscard]] unsigned of(const void* source, const void* destination, std::size_t bytes,
                            be16 source_port, be16 destination_port) const noexcept {
    std::array<std::uint8_t, 36> input;
    std::memcpy(input.data(), source, bytes);
    std::memcpy(input.data() + bytes, destination, bytes);
    std::memcpy(input.data() + 2 * bytes, &source_port, 2);
    std::memcpy(input.data() + 2 * bytes + 2, &destination_port, 2);
    return hash_.hash({input.data(), 2 * bytes + 4}) % entries % workers_;
  }
  [[nodiscard]] unsigned workers() const noexcept { return workers_; }

 private:
  wire::toeplitz hash_;
  unsigned workers_;
};

}  // namespace sluice
