// SPDX-License-Identifier: Apache-2.0
#include "dataplane/packet/icmp.hpp"

#include <array>

namespace sluice::wire {
namespace {

constexpr std::uint8_t protocol_number(ip_proto p) {
  return static_cast<std::uint8_t>(p);
}

// TOS and traffic class of errors: precedence 6, internetwork control (RFC 1812 section
// 4.3.2.5).
constexpr std::uint8_t error_tos = 0xc0;
constexpr std::uint8_t error_ttl = 64;

void read_ports(std::span<const std::byte> bytes, quoted& q) noexcept {
  if (q.protocol != protocol_number(ip_proto::tcp) &&
      q.protocol != protocol_number(ip_proto::udp)) {
    q.what = quoted::kind::other;
    return;
  }
  const auto* l4 = at<udp_header>(bytes, q.l4);
  if (l4 == nullptr) return;
  q.source_port = l4->source_port;
  q.destination_port = l4->destination_port;
  q.what = quoted::kind::flow;
}

void read_ipv4(std::span<const std::byte> bytes, quoted& q) noexcept {
  const auto* ip = at<ipv4_header>(bytes, q.ip);
  if (ip == nullptr || ip->version() != 4 || ip->header_length() < sizeof(ipv4_header)) return;
  q.version = 4;
  q.protocol = ip->protocol;
  q.dont_fragment = (ip->fragment.host() & ipv4_header::dont_fragment) != 0;
  q.source = ip_address::v4(ip->source);
  q.destination = ip_address::v4(ip->destination);
  q.ip_length = ip->total_length.host();
  q.l4 = static_cast<std::uint16_t>(q.ip + ip->header_length());
  if ((ip->fragment.host() & ipv4_header::offset_mask) != 0) {
    q.what = quoted::kind::other;
    return;
  }
  read_ports(bytes, q);
}

void read_ipv6(std::span<const std::byte> bytes, quoted& q) noexcept {
  const auto* ip = at<ipv6_header>(bytes, q.ip);
  if (ip == nullptr || ip->version() != 6) return;
  q.version = 6;
  q.dont_fragment = true;
  q.source = ip_address::v6(ip->source);
  q.destination = ip_address::v6(ip->destination);
  // A mapped address would be looked up as the IPv4 address that it is not.
  if (q.source.is_v4() || q.destination.is_v4()) return;
  q.ip_length = std::uint32_t{sizeof(ipv6_header)} + ip->payload_length.host();
  q.protocol = ip->next_header;
  std::uint32_t offset = q.ip + std::uint32_t{sizeof(ipv6_header)};
  for (unsigned i = 0; i < max_ipv6_extensions; ++i) {
    const auto proto = static_cast<ip_proto>(q.protocol);
    if (proto == ip_proto::fragment) {
      const auto* fragment = at<ipv6_fragment>(bytes, offset);
      if (fragment == nullptr) return;
      q.protocol = fragment->next_header;
      offset += std::uint32_t{sizeof(ipv6_fragment)};
      if ((fragment->offset_more.host() & ipv6_fragment::offset_mask) != 0) {
        q.l4 = static_cast<std::uint16_t>(offset);
        q.what = quoted::kind::other;
        return;
      }
    } else if (proto == ip_proto::hop_by_hop || proto == ip_proto::routing ||
               proto == ip_proto::dest_options || proto == ip_proto::ah) {
      const auto* extension = at<ipv6_extension>(bytes, offset);
      if (extension == nullptr) return;
      q.protocol = extension->next_header;
      offset += proto == ip_proto::ah ? (extension->length + 2u) * 4 : (extension->length + 1u) * 8;
    } else {
      break;
    }
    if (offset > bytes.size()) return;
  }
  q.l4 = static_cast<std::uint16_t>(offset);
  read_ports(bytes, q);
}

// inside() reads the packet that a tunnel header at `offset` ends before.
quoted inside(std::span<const std::byte> bytes, std::size_t offset, unsigned version) noexcept {
  quoted q = parse_quoted(bytes, offset);
  if (q.version != version) q.what = quoted::kind::unreadable;
  return q;
}

}  // namespace

quoted parse_quoted(std::span<const std::byte> bytes, std::size_t offset) noexcept {
  quoted q;
  // Offsets are 16 bits: an error is never that long.
  bytes = bytes.first(std::min<std::size_t>(bytes.size(), 0x8000));
  if (offset >= bytes.size()) return q;
  q.ip = static_cast<std::uint16_t>(offset);
  switch (std::to_integer<unsigned>(bytes[offset]) >> 4) {
    case 4:
      read_ipv4(bytes, q);
      break;
    case 6:
      read_ipv6(bytes, q);
      break;
    default:
      break;
  }
  return q;
}

quoted tunnelled(std::span<const std::byte> bytes, const quoted& outer,
                 std::uint16_t gue_port) noexcept {
  const quoted none;
  if (outer.what == quoted::kind::unreadable) return none;
  const auto version_of = [](std::uint8_t protocol) {
    return protocol == protocol_number(ip_proto::ipip)   ? 4u
           : protocol == protocol_number(ip_proto::ipv6) ? 6u
                                                         : 0u;
  };
  switch (static_cast<ip_proto>(outer.protocol)) {
    case ip_proto::ipip:
      return inside(bytes, outer.l4, 4);
    case ip_proto::ipv6:
      return inside(bytes, outer.l4, 6);
    case ip_proto::gre: {
      // RFC 2784 section 2: no flags, version 0, an Ethernet type.
      struct [[gnu::packed, gnu::aligned(2)]] gre_header {
        be16 flags;
        be16 type;
      };
      const auto* gre = at<gre_header>(bytes, outer.l4);
      if (gre == nullptr || gre->flags.raw() != 0) return none;
      const auto type = static_cast<ether_type>(gre->type.host());
      if (type != ether_type::ipv4 && type != ether_type::ipv6) return none;
      return inside(bytes, outer.l4 + sizeof(gre_header), type == ether_type::ipv4 ? 4 : 6);
    }
    case ip_proto::udp: {
      if (outer.what != quoted::kind::flow || outer.destination_port.host() != gue_port)
        return none;
      const std::size_t gue = outer.l4 + sizeof(udp_header);
      if (gue + 4 > bytes.size()) return none;
      const auto first = std::to_integer<unsigned>(bytes[gue]);
      if (first >> 6 == 1) return inside(bytes, gue, first >> 4);  // variant 1: IP itself
      // Variant 0: version 2 bits, control bit, header length 5 bits in words, protocol.
      if (first >> 5 != 0) return none;
      return inside(bytes, gue + 4 + (first & 31u) * 4,
                    version_of(std::to_integer<std::uint8_t>(bytes[gue + 1])));
    }
    default:
      return none;
  }
}

void write_too_big4(std::byte* at, be32 source, be32 destination, std::uint32_t quote,
                    std::uint16_t mtu) noexcept {
  ipv4_header ip{};
  ip.version_ihl = 0x45;
  ip.tos = error_tos;
  ip.total_length = be16{static_cast<std::uint16_t>(error4_header + quote)};
  ip.fragment = be16{ipv4_header::dont_fragment};  // atomic: no id (RFC 6864 section 4.1)
  ip.ttl = error_ttl;
  ip.protocol = protocol_number(ip_proto::icmp);
  ip.source = source;
  ip.destination = destination;
  ip.checksum = checksum(sum({reinterpret_cast<const std::byte*>(&ip), sizeof ip}));
  std::memcpy(at, &ip, sizeof ip);
  icmp_header icmp{};
  icmp.type = icmp4_unreachable;
  icmp.code = icmp4_fragmentation_needed;
  icmp.low = be16{mtu};
  std::byte* const message = at + sizeof ip;
  std::memcpy(message, &icmp, sizeof icmp);
  icmp.checksum = checksum(sum({message, sizeof icmp + quote}));
  std::memcpy(message, &icmp, sizeof icmp);
}

void write_too_big6(std::byte* at, const ip_address& source, const ip_address& destination,
                    std::uint32_t quote, std::uint32_t mtu) noexcept {
  const auto length = std::uint32_t{sizeof(icmp_header)} + quote;
  ipv6_header ip{};
  ip.version_class_label = be32{6u << 28 | std::uint32_t{error_tos} << 20};
  ip.payload_length = be16{static_cast<std::uint16_t>(length)};
  ip.next_header = protocol_number(ip_proto::icmpv6);
  ip.hop_limit = error_ttl;
  ip.source = source.bytes;
  ip.destination = destination.bytes;
  std::memcpy(at, &ip, sizeof ip);
  icmp_header icmp{};
  icmp.type = icmp6_too_big;
  icmp.high = be16{static_cast<std::uint16_t>(mtu >> 16)};
  icmp.low = be16{static_cast<std::uint16_t>(mtu)};
  std::byte* const message = at + sizeof ip;
  std::memcpy(message, &icmp, sizeof icmp);
  icmp.checksum =
      checksum(sum({message, length}) + pseudo_sum6(source.bytes.data(), destination.bytes.data(),
                                                    length, ip_proto::icmpv6));
  std::memcpy(message, &icmp, sizeof icmp);
}

std::uint16_t smaller_mtu(std::uint32_t length) noexcept {
  constexpr std::array<std::uint16_t, 10> plateaus{32000, 17914, 8166, 4352, 2002,
                                                   1492,  1006,  508,  296,  68};
  for (const std::uint16_t p : plateaus)
    if (p < length) return p;
  return 68;
}

}  // namespace sluice::wire
