// SPDX-License-Identifier: Apache-2.0
// Addresses to text and back. Any thread; no locale, no name resolution.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"

namespace sluice {

// ip_port: port in host order.
struct ip_port {
  ip_address address;
  std::uint16_t port{};

  auto operator<=>(const ip_port&) const = default;
};

// ip_prefix: length counts the bits of the address's own family: 0 to 32 for IPv4,
// 0 to 128 for IPv6. Full length: a single address.
struct ip_prefix {
  ip_address address;
  std::uint8_t length{};

  // single() tells whether this is one address.
  [[nodiscard]] constexpr bool single() const noexcept {
    return length == (address.is_v4() ? 32 : 128);
  }
  auto operator<=>(const ip_prefix&) const = default;
};

// The errors are a clause that follows the name of what was read:
// "'10.0.0' is not an IP address".

// parse_ip() reads a dotted quad or an IPv6 address (RFC 4291 section 2.2), without
// zone. IPv6 that maps IPv4 (::ffff:a.b.c.d) becomes that IPv4 address.
[[nodiscard]] tl::expected<ip_address, std::string> parse_ip(std::string_view text);
// parse_ip_port() reads "192.0.2.1:80" or "[2001:db8::1]:80"; port 1 to 65535.
[[nodiscard]] tl::expected<ip_port, std::string> parse_ip_port(std::string_view text);
// parse_prefix() reads "192.0.2.0/24", or an address alone as a prefix of full length.
// Host bits that are set are refused.
[[nodiscard]] tl::expected<ip_prefix, std::string> parse_prefix(std::string_view text);
// parse_mac() reads six two-digit hexadecimal groups separated by ':' or '-'.
[[nodiscard]] tl::expected<mac_address, std::string> parse_mac(std::string_view text);

// format_ip() writes IPv4 as a dotted quad and IPv6 as in RFC 5952.
[[nodiscard]] std::string format_ip(const ip_address& address);
[[nodiscard]] std::string format_ip_port(const ip_port& endpoint);
// format_prefix() leaves "/32" and "/128" out: it writes what parse_prefix() reads.
[[nodiscard]] std::string format_prefix(const ip_prefix& prefix);
// format_mac() writes lower case with colons.
[[nodiscard]] std::string format_mac(const mac_address& mac);

}  // namespace sluice
