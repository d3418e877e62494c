// SPDX-License-Identifier: Apache-2.0
// Wire headers. Fields are in network order (be<T>); the accessors return host order.
// Alignment 2: after 14 bytes of Ethernet nothing is 4-aligned, and a frame starts at an
// even address in every buffer that we read from.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "dataplane/abi/byteorder.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::wire {

// IEEE 802.3.
struct [[gnu::packed, gnu::aligned(2)]] ethernet_header {
  mac_address destination;
  mac_address source;
  be16 type;

  // is_group() tells broadcast and multicast from unicast.
  [[nodiscard]] constexpr bool is_group() const noexcept {
    return (destination[0] & 1) != 0;
  }
};
static_assert(sizeof(ethernet_header) == 14);

// IEEE 802.1Q: what follows the tag's type.
struct [[gnu::packed, gnu::aligned(2)]] vlan_header {
  be16 control;
  be16 type;
};
static_assert(sizeof(vlan_header) == 4);
inline constexpr unsigned max_vlan_tags = 2;

// RFC 791 section 3.1.
struct [[gnu::packed, gnu::aligned(2)]] ipv4_header {
  std::uint8_t version_ihl;
  std::uint8_t tos;
  be16 total_length;
  be16 id;
  be16 fragment;
  std::uint8_t ttl;
  std::uint8_t protocol;
  be16 checksum;
  be32 source;
  be32 destination;

  static constexpr std::uint16_t dont_fragment = 0x4000;
  static constexpr std::uint16_t more_fragments = 0x2000;
  static constexpr std::uint16_t offset_mask = 0x1fff;

  [[nodiscard]] constexpr unsigned version() const noexcept {
    return version_ihl >> 4;
  }
  [[nodiscard]] constexpr unsigned header_length() const noexcept {
    return (version_ihl & 0xfu) * 4;
  }
  [[nodiscard]] constexpr bool is_fragment() const noexcept {
    return (fragment.host() & (more_fragments | offset_mask)) != 0;
  }
};
static_assert(sizeof(ipv4_header) == 20 && offsetof(ipv4_header, source) == 12);

// RFC 8200 section 3.
struct [[gnu::packed, gnu::aligned(2)]] ipv6_header {
  be32 version_class_label;
  be16 payload_length;
  std::uint8_t next_header;
  std::uint8_t hop_limit;
  std::array<std::uint8_t, 16> source;
  std::array<std::uint8_t, 16> destination;

  [[nodiscard]] constexpr unsigned version() const noexcept {
    return version_class_label.host() >> 28;
  }
  [[nodiscard]] constexpr std::uint8_t traffic_class() const noexcept {
    return static_cast<std::uint8_t>(version_class_label.host() >> 20);
  }
};
static_assert(sizeof(ipv6_header) == 40 && offsetof(ipv6_header, source) == 8);

// RFC 8200 section 4: what hop-by-hop, routing and destination options share; AH
// (RFC 4302) counts in other units.
struct [[gnu::packed, gnu::aligned(2)]] ipv6_extension {
  std::uint8_t next_header;
  std::uint8_t length;
  std::uint8_t type;           // routing: routing type
  std::uint8_t segments_left;  // routing
};
static_assert(sizeof(ipv6_extension) == 4);
// Extension headers walked before we give up; the same number as in bpf/.
inline constexpr unsigned max_ipv6_extensions = 8;

// RFC 8200 section 4.5.
struct [[gnu::packed, gnu::aligned(2)]] ipv6_fragment {
  std::uint8_t next_header;
  std::uint8_t reserved;
  be16 offset_more;
  be32 id;

  static constexpr std::uint16_t offset_mask = 0xfff8;  // bytes
  static constexpr std::uint16_t more_fragments = 1;

  // is_atomic() tells a whole packet that carries the header all the same (RFC 6946).
  [[nodiscard]] constexpr bool is_atomic() const noexcept {
    return (offset_more.host() & 0xfff9) == 0;
  }
};
static_assert(sizeof(ipv6_fragment) == 8);

// RFC 9293 section 3.1.
struct [[gnu::packed, gnu::aligned(2)]] tcp_header {
  be16 source_port;
  be16 destination_port;
  be32 sequence;
  be32 acknowledgement;
  std::uint8_t data_offset;  // high four bits
  std::uint8_t flags;
  be16 window;
  be16 checksum;
  be16 urgent;

  [[nodiscard]] constexpr unsigned header_length() const noexcept {
    return (data_offset >> 4) * 4u;
  }
};
static_assert(sizeof(tcp_header) == 20 && offsetof(tcp_header, flags) == 13);

// RFC 768.
struct [[gnu::packed, gnu::aligned(2)]] udp_header {
  be16 source_port;
  be16 destination_port;
  be16 length;
  be16 checksum;
};
static_assert(sizeof(udp_header) == 8);

// RFC 792, RFC 4443 section 2.1: what all messages begin with, and the errors' next word.
struct [[gnu::packed, gnu::aligned(2)]] icmp_header {
  std::uint8_t type;
  std::uint8_t code;
  be16 checksum;
  be16 high;  // echo: identifier; RFC 4443 packet too big: MTU, 32 bits with `low`
  be16 low;   // echo: sequence number; RFC 1191 fragmentation needed: next-hop MTU
};
static_assert(sizeof(icmp_header) == 8);

// Message types; 4: RFC 792, RFC 1191; 6: RFC 4443.
enum icmp_type : std::uint8_t {
  icmp4_echo_reply = 0,
  icmp4_unreachable = 3,
  icmp4_echo = 8,
  icmp4_time_exceeded = 11,
  icmp4_parameter_problem = 12,
  icmp6_unreachable = 1,
  icmp6_too_big = 2,
  icmp6_time_exceeded = 3,
  icmp6_parameter_problem = 4,
  icmp6_echo = 128,
  icmp6_echo_reply = 129,
};
inline constexpr std::uint8_t icmp4_fragmentation_needed = 4;  // code of icmp4_unreachable

// at() returns the header at `offset`, or null if it does not lie in the span. One compare.
template <class Header>
[[nodiscard]] inline const Header* at(std::span<const std::byte> bytes,
                                      std::size_t offset) noexcept {
  static_assert(std::is_trivially_copyable_v<Header>);
  return bytes.size() >= sizeof(Header) && offset <= bytes.size() - sizeof(Header)
             ? reinterpret_cast<const Header*>(bytes.data() + offset)
             : nullptr;
}

}  // namespace sluice::wire
