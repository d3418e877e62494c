// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/address_text.hpp"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <cstring>
#include <optional>

namespace sluice {
namespace {

// quoted() shows text from outside in a message: cut, printable ASCII only.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 64)) out += c < 0x20 || c > 0x7e ? '?' : c;
  if (text.size() > 64) out += "...";
  return out + "'";
}

tl::unexpected<std::string> bad(std::string_view text, std::string_view what) {
  return tl::unexpected{quoted(text) + std::string{what}};
}

// number() reads all of text as a decimal number without sign or leading zeros.
std::optional<unsigned> number(std::string_view text, unsigned max) {
  unsigned v = 0;
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc{} || end != text.data() + text.size() || v > max) return std::nullopt;
  return v;
}

bool host_bits_set(const ip_prefix& p) {
  const unsigned skip = p.address.is_v4() ? 96u + p.length : p.length;
  for (unsigned bit = skip; bit < 128; ++bit)
    if (p.address.bytes[bit / 8] & (0x80u >> bit % 8)) return true;
  return false;
}

}  // namespace

tl::expected<ip_address, std::string> parse_ip(std::string_view text) {
  std::array<char, INET6_ADDRSTRLEN + 1> buffer{};
  // A NUL inside would end the text early for inet_pton.
  if (text.empty() || text.size() >= buffer.size() || text.find('\0') != text.npos)
    return bad(text, " is not an IP address");
  std::memcpy(buffer.data(), text.data(), text.size());
  if (text.find(':') == text.npos) {
    std::array<std::uint8_t, 4> v4{};
    if (inet_pton(AF_INET, buffer.data(), v4.data()) != 1)
      return bad(text, " is not an IP address");
    return ip_address::v4(v4);
  }
  std::array<std::uint8_t, 16> v6{};
  if (inet_pton(AF_INET6, buffer.data(), v6.data()) != 1) return bad(text, " is not an IP address");
  return ip_address::v6(v6);
}

tl::expected<ip_port, std::string> parse_ip_port(std::string_view text) {
  constexpr std::string_view right =
      " is not an address with a port, such as 192.0.2.1:80 or [2001:db8::1]:80";
  const auto colon = text.rfind(':');
  if (colon == text.npos) return bad(text, right);
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  // Without brackets "2001:db8::1:80" would be ambiguous; with them "[192.0.2.1]" is no form.
  if (bracketed != (host.find(':') != host.npos)) return bad(text, right);
  const auto address = parse_ip(host);
  if (!address) return bad(text, right);
  const auto port = number(text.substr(colon + 1), 65535);
  if (!port || *port == 0) return bad(text, ": the port is not a number from 1 to 65535");
  return ip_port{*address, static_cast<std::uint16_t>(*port)};
}

tl::expected<ip_prefix, std::string> parse_prefix(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = parse_ip(text.substr(0, slash));
  if (!address) return bad(text, " is not an IP address or prefix, such as 192.0.2.0/24");
  const unsigned full = address->is_v4() ? 32 : 128;
  ip_prefix out{*address, static_cast<std::uint8_t>(full)};
  if (slash == text.npos) return out;
  const auto length = number(text.substr(slash + 1), full);
  // An IPv6 text that maps IPv4 would have its length counted in the other family.
  if (!length || (address->is_v4() && text.find(':') != text.npos))
    return bad(text, ": the prefix length is not a number from 0 to " + std::to_string(full));
  out.length = static_cast<std::uint8_t>(*length);
  if (host_bits_set(out)) {
    ip_prefix right = out;
    for (unsigned bit = (address->is_v4() ? 96u : 0u) + out.length; bit < 128; ++bit)
      right.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80u >> bit % 8));
    return bad(text, " has bits set beyond the prefix; the prefix is " + format_prefix(right));
  }
  return out;
}

tl::expected<mac_address, std::string> parse_mac(std::string_view text) {
  constexpr std::string_view right = " is not a MAC address, such as 02:00:00:00:00:01";
  mac_address mac{};
  if (text.size() != 17 || (text[2] != ':' && text[2] != '-')) return bad(text, right);
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const char* at = text.data() + 3 * i;
    if (i > 0 && at[-1] != text[2]) return bad(text, right);
    const auto [end, error] = std::from_chars(at, at + 2, mac[i], 16);
    if (error != std::errc{} || end != at + 2) return bad(text, right);
  }
  return mac;
}

std::string format_ip(const ip_address& address) {
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  if (address.is_v4())
    inet_ntop(AF_INET, address.bytes.data() + 12, buffer.data(), buffer.size());
  else
    inet_ntop(AF_INET6, address.bytes.data(), buffer.data(), buffer.size());
  return buffer.data();
}

std::string format_ip_port(const ip_port& endpoint) {
  const std::string host = format_ip(endpoint.address);
  return (endpoint.address.is_v4() ? host : "[" + host + "]") + ":" + std::to_string(endpoint.port);
}

std::string format_prefix(const ip_prefix& prefix) {
  const std::string host = format_ip(prefix.address);
  return prefix.single() ? host : host + "/" + std::to_string(prefix.length);
}

std::string format_mac(const mac_address& mac) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (const std::uint8_t b : mac) {
    if (!out.empty()) out += ':';
    out += digits[b >> 4];
    out += digits[b & 15];
  }
  return out;
}

}  // namespace sluice
