// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/icmp_echo.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace sluice::health {
namespace {

constexpr std::size_t echo_header = 8;
constexpr std::size_t ipv6_header = 40;
constexpr unsigned protocol_icmp = 1;
constexpr unsigned protocol_icmp6 = 58;

struct types {
  unsigned request, reply, unreachable;
};
constexpr types types4{8, 0, 3};
constexpr types types6{128, 129, 1};

unsigned byte_at(std::string_view bytes, std::size_t at) noexcept {
  return static_cast<unsigned char>(bytes[at]);
}

std::uint16_t half_at(std::string_view bytes, std::size_t at) noexcept {
  return static_cast<std::uint16_t>(byte_at(bytes, at) << 8 | byte_at(bytes, at + 1));
}

void put_half(std::string& out, unsigned value) {
  out += static_cast<char>(value >> 8 & 0xff);
  out += static_cast<char>(value & 0xff);
}

// without_header() is what follows an IPv4 header of ICMP that is not a later fragment.
std::optional<std::string_view> without_header(std::string_view packet) noexcept {
  if (packet.size() < 20 || byte_at(packet, 0) >> 4 != 4) return std::nullopt;
  const std::size_t length = (byte_at(packet, 0) & 15) * 4;
  if (length < 20 || packet.size() < length || byte_at(packet, 9) != protocol_icmp ||
      (half_at(packet, 6) & 0x1fff) != 0)
    return std::nullopt;
  return packet.substr(length);
}

std::string unreachable_text(bool v4, unsigned code) {
  static constexpr std::array<std::string_view, 14> texts4{"network unreachable",
                                                           "host unreachable",
                                                           "protocol unreachable",
                                                           "port unreachable",
                                                           "too big",
                                                           "source route failed",
                                                           "network unknown",
                                                           "host unknown",
                                                           "source isolated",
                                                           "network prohibited",
                                                           "host prohibited",
                                                           "network unreachable for this service",
                                                           "host unreachable for this service",
                                                           "prohibited by a filter"};
  static constexpr std::array<std::string_view, 7> texts6{
      "no route",         "prohibited by a filter", "beyond the scope of the source",
      "host unreachable", "port unreachable",       "source address refused",
      "route refused"};
  if (v4 && code < texts4.size()) return std::string{texts4[code]};
  if (!v4 && code < texts6.size()) return std::string{texts6[code]};
  return "unreachable, code " + std::to_string(code);
}

}  // namespace

std::string echo_request(bool v4, echo_id id, std::uint64_t data) {
  std::string out;
  out += static_cast<char>(v4 ? types4.request : types6.request);
  out.append(3, '\0');
  put_half(out, id.identifier);
  put_half(out, id.sequence);
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(data >> shift & 0xff);
  if (!v4) return out;
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < out.size(); i += 2) sum += half_at(out, i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  const unsigned checksum = ~sum & 0xffff;
  out[2] = static_cast<char>(checksum >> 8);
  out[3] = static_cast<char>(checksum & 0xff);
  return out;
}

std::optional<echo_news> read_echo(bool v4, std::string_view message, bool skip_ipv4) {
  if (skip_ipv4) {
    const auto inner = without_header(message);
    if (!inner) return std::nullopt;
    message = *inner;
  }
  const types& known = v4 ? types4 : types6;
  if (message.size() < echo_header) return std::nullopt;
  const unsigned type = byte_at(message, 0);
  echo_news out;
  if (type == known.reply) {
    if (byte_at(message, 1) != 0 || message.size() < echo_header + 8) return std::nullopt;
    out.id = {half_at(message, 4), half_at(message, 6)};
    out.data = 0;
    for (std::size_t i = 0; i < 8; ++i) *out.data = *out.data << 8 | byte_at(message, 8 + i);
    return out;
  }
  if (type != known.unreachable) return std::nullopt;
  out.error = unreachable_text(v4, byte_at(message, 1));
  std::string_view quoted = message.substr(echo_header);
  if (v4) {
    const auto inner = without_header(quoted);
    if (!inner) return std::nullopt;
    std::array<std::uint8_t, 4> address{};
    std::memcpy(address.data(), quoted.data() + 16, address.size());
    out.quoted = ip_address::v4(address);
    quoted = *inner;
  } else {
    // No extension headers: we send none.
    if (quoted.size() < ipv6_header || byte_at(quoted, 0) >> 4 != 6 ||
        byte_at(quoted, 6) != protocol_icmp6)
      return std::nullopt;
    std::array<std::uint8_t, 16> address{};
    std::memcpy(address.data(), quoted.data() + 24, address.size());
    out.quoted = ip_address::v6(address);
    quoted = quoted.substr(ipv6_header);
  }
  if (quoted.size() < echo_header || byte_at(quoted, 0) != known.request) return std::nullopt;
  out.id = {half_at(quoted, 4), half_at(quoted, 6)};
  return out;
}

}  // namespace sluice::health
