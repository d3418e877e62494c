// SPDX-License-Identifier: Apache-2.0
// ICMP (RFC 792) and ICMPv6 (RFC 4443): what an error quotes, and the errors that we send.
// Pure: bytes and values, no mbufs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

// quoted: the packet inside an ICMP error, or inside the tunnel that one is about. All
// offsets are from the start of the span.
struct quoted {
  enum class kind : std::uint8_t {
    unreadable,  // not a packet, or cut off before its ports
    flow,        // TCP or UDP with its ports
    other,       // anything else; addresses and protocol are set
  };
  kind what{kind::unreadable};
  std::uint8_t version{0};
  std::uint8_t protocol{0};  // behind IPv6 extension headers
  bool dont_fragment{false};
  std::uint16_t ip{0};
  std::uint16_t l4{0};         // offset of what follows the IP headers
  std::uint32_t ip_length{0};  // as its header says; less may be quoted
  ip_address source;
  ip_address destination;
  be16 source_port;
  be16 destination_port;
};

// parse_quoted() reads a quoted packet at `offset`. A quote is cut off anywhere and its
// checksums need not be right (RFC 1812 section 4.3.2.3); at least 8 bytes of TCP or UDP
// are asked for, which is what RFC 792 promises.
[[nodiscard]] quoted parse_quoted(std::span<const std::byte> bytes, std::size_t offset) noexcept;

// tunnelled() finds the packet inside a quoted tunnel packet: ipip, gre without options, gue
// of variant 0 or 1 to the UDP port gue_port (host order). Unreadable if it is none.
[[nodiscard]] quoted tunnelled(std::span<const std::byte> bytes, const quoted& outer,
                               std::uint16_t gue_port) noexcept;

// What an error may be at most: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c).
inline constexpr std::uint32_t max_error4 = 576;
inline constexpr std::uint32_t max_error6 = 1280;
// What is put in front of the quote: IP and ICMP header.
inline constexpr std::uint32_t error4_header = sizeof(ipv4_header) + sizeof(icmp_header);
inline constexpr std::uint32_t error6_header = sizeof(ipv6_header) + sizeof(icmp_header);

// pseudo_sum6() is the sum of the pseudo-header of RFC 8200 section 8.1.
inline std::uint64_t pseudo_sum6(const std::uint8_t* source, const std::uint8_t* destination,
                                 std::uint32_t length, ip_proto next) noexcept {
  const auto* s = reinterpret_cast<const std::byte*>(source);
  const auto* d = reinterpret_cast<const std::byte*>(destination);
  return sum({s, 16}) + sum({d, 16}) + be32{length}.raw() +
         std::uint64_t{be16{static_cast<std::uint16_t>(next)}.raw()};
}

// write_too_big4() writes an ICMP "fragmentation needed" (RFC 1191 section 4) from `source`
// to `destination` in front of `quote` bytes at `at + error4_header`. The headers are
// aligned to two bytes.
void write_too_big4(std::byte* at, be32 source, be32 destination, std::uint32_t quote,
                    std::uint16_t mtu) noexcept;
// write_too_big6() writes an ICMPv6 "packet too big" (RFC 4443 section 3.2).
void write_too_big6(std::byte* at, const ip_address& source, const ip_address& destination,
                    std::uint32_t quote, std::uint32_t mtu) noexcept;

// smaller_mtu() is what to try when a router does not say its MTU (RFC 1191 section 7,
// table 7-1): the next common MTU below a packet's length.
[[nodiscard]] std::uint16_t smaller_mtu(std::uint32_t length) noexcept;

}  // namespace sluice::wire
