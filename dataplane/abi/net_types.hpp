// SPDX-License-Identifier: Apache-2.0
// Addresses and protocol numbers as both planes store them. std only.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dataplane/abi/byteorder.hpp"

namespace sluice {

inline constexpr std::size_t cache_line = 64;

// IANA protocol numbers. A distinct type from ether_type on purpose.
enum class ip_proto : std::uint8_t {
  hop_by_hop = 0,
  icmp = 1,
  ipip = 4,
  tcp = 6,
  udp = 17,
  ipv6 = 41,
  routing = 43,
  fragment = 44,
  gre = 47,
  esp = 50,
  ah = 51,
  icmpv6 = 58,
  no_next = 59,
  dest_options = 60,
};

// Ethernet types in host order.
enum class ether_type : std::uint16_t {
  ipv4 = 0x0800,
  arp = 0x0806,
  vlan = 0x8100,
  ipv6 = 0x86dd,
  qinq = 0x88a8,
};

using mac_address = std::array<std::uint8_t, 6>;

// ip_address: 16 bytes in network order; IPv4 is stored as ::ffff:a.b.c.d
// (RFC 4291 section 2.5.5.2), so that one type serves both families.
struct ip_address {
  std::array<std::uint8_t, 16> bytes{};

  // v4() makes an address from 4 bytes in network order.
  static constexpr ip_address v4(std::array<std::uint8_t, 4> b) noexcept {
    ip_address a;
    a.bytes[10] = a.bytes[11] = 0xff;
    for (std::size_t i = 0; i < 4; ++i) a.bytes[12 + i] = b[i];
    return a;
  }
  static constexpr ip_address v4(be32 raw) noexcept {
    const std::uint32_t h = raw.host();
    return v4({static_cast<std::uint8_t>(h >> 24), static_cast<std::uint8_t>(h >> 16),
               static_cast<std::uint8_t>(h >> 8), static_cast<std::uint8_t>(h)});
  }
  static constexpr ip_address v6(std::array<std::uint8_t, 16> b) noexcept { return ip_address{b}; }

  [[nodiscard]] constexpr bool is_v4() const noexcept {
    for (std::size_t i = 0; i < 10; ++i)
      if (bytes[i] != 0) return false;
    return bytes[10] == 0xff && bytes[11] == 0xff;
  }
  // v4_raw() returns the last four bytes as they are in memory (network order).
  [[nodiscard]] be32 v4_raw() const noexcept {
    std::uint32_t r;
    std::memcpy(&r, bytes.data() + 12, 4);
    return be32::from_raw(r);
  }
  // low() and high() are the two halves as they are in memory, for hashing and comparing.
  [[nodiscard]] std::uint64_t high() const noexcept {
    std::uint64_t r;
    std::memcpy(&r, bytes.data(), 8);
    return r;
  }
  [[nodiscard]] std::uint64_t low() const noexcept {
    std::uint64_t r;
    std::memcpy(&r, bytes.data() + 8, 8);
    return r;
  }
  constexpr auto operator<=>(const ip_address&) const noexcept = default;
};

static_assert(sizeof(ip_address) == 16 && std::is_trivially_copyable_v<ip_address>);
static_assert(std::has_unique_object_representations_v<ip_address>);

}  // namespace sluice
