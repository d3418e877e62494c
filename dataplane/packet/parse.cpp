// SPDX-License-Identifier: Apache-2.0
#include "dataplane/packet/parse.hpp"

#include <span>

namespace sluice::wire {
namespace {

using abi::counter_id;

constexpr std::uint8_t number(ip_proto p) {
  return static_cast<std::uint8_t>(p);
}

// Source addresses that nobody may use on the wire: RFC 1122 section 3.2.1.3, RFC 1812
// section 5.3.7. 240/4 is reserved, but in use in places: only its last address is refused.
bool bad_source4(be32 source, be32 destination) noexcept {
  const std::uint32_t s = source.host();
  const std::uint32_t first = s >> 24;
  return first == 0 || first == 127 || (s >> 28) == 0xe || s == 0xffffffff || source == destination;
}

// RFC 4291 sections 2.5.2, 2.5.3, 2.7; mapped addresses (2.5.5.2) never appear on a wire.
bool bad_source6(const ipv6_header& ip) noexcept {
  const ip_address s{ip.source};
  if (s.bytes[0] == 0xff || ip.source == ip.destination || s.is_v4()) return true;
  if (s.high() != 0) return false;
  return s.low() == 0 || s.low() == be64{1}.raw();
}

void set_fault(parsed& p, counter_id fault) noexcept {
  p.kind = parse_kind::fault;
  p.fault = fault;
}

parsed& unreadable(parsed& p, counter_id fault) noexcept {
  p.kind = parse_kind::unreadable;
  p.fault = fault;
  return p;
}

constexpr bool is_transport(std::uint8_t protocol) noexcept {
  return protocol == number(ip_proto::tcp) || protocol == number(ip_proto::udp);
}

// possible_fragment() judges a fragment's place in the datagram: offset and length of its
// payload, in bytes.
bool possible_fragment(std::uint32_t offset, bool more, std::uint32_t payload,
                       std::uint8_t protocol) noexcept {
  // RFC 791 section 3.2, RFC 8200 section 4.5: whole units of 8 bytes but in the last one,
  // nothing beyond 65535. An offset of 1 would overwrite TCP flags (RFC 3128 section 2.2).
  return payload != 0 && offset + payload <= 65535 && (!more || payload % 8 == 0) &&
         !(offset == 8 && protocol == number(ip_proto::tcp));
}

// The transport header, at p.l4, of an IP packet whose own headers are fine. kind: flow, or
// first_fragment, of which the datagram's rest is elsewhere.
void parse_l4(parsed& p, std::span<const std::byte> bytes, parse_kind kind) noexcept {
  const std::uint32_t l4_length = p.ip_length - (p.l4 - std::uint32_t{p.l3});
  if (p.protocol == number(ip_proto::tcp)) {
    const auto* tcp = at<tcp_header>(bytes, p.l4);
    if (tcp == nullptr || l4_length < sizeof(tcp_header))
      return set_fault(p, counter_id::drop_truncated);
    // RFC 9293 section 3.1, data offset.
    if (tcp->header_length() < sizeof(tcp_header) || tcp->header_length() > l4_length)
      return set_fault(p, counter_id::drop_bad_l4_header);
    p.tcp_flags = tcp->flags;
  } else {
    const auto* udp = at<udp_header>(bytes, p.l4);
    if (udp == nullptr || l4_length < sizeof(udp_header))
      return set_fault(p, counter_id::drop_truncated);
    // RFC 768, length. Less than what IP has is fine (RFC 9868); 0 is for jumbograms only.
    if (udp->length.host() < sizeof(udp_header) ||
        (udp->length.host() > l4_length && kind == parse_kind::flow))
      return set_fault(p, counter_id::drop_bad_l4_header);
  }
  p.kind = kind;
}

void parse_ipv4(parsed& p, std::span<const std::byte> bytes, std::uint32_t total_length) noexcept {
  const auto* ip = at<ipv4_header>(bytes, p.l3);
  if (ip == nullptr) return void(unreadable(p, counter_id::drop_truncated));
  if (ip->version() != 4) return void(unreadable(p, counter_id::drop_bad_ipv4_header));
  p.protocol = ip->protocol;
  const unsigned header_length = ip->header_length();
  const std::uint32_t ip_length = ip->total_length.host();
  // RFC 1812 section 5.2.2, checks (4), (5), and the frame's length before the sum.
  if (header_length < sizeof(ipv4_header)) return set_fault(p, counter_id::drop_bad_ipv4_header);
  if (header_length > bytes.size() - p.l3) return set_fault(p, counter_id::drop_truncated);
  if (ip_length < header_length) return set_fault(p, counter_id::drop_bad_ipv4_header);
  if (ip_length > total_length - p.l3) return set_fault(p, counter_id::drop_truncated);
  if (!checksum_holds(sum(bytes.subspan(p.l3, header_length))))
    return set_fault(p, counter_id::drop_bad_ipv4_checksum);
  p.ip_length = ip_length;
  p.l4 = static_cast<std::uint16_t>(p.l3 + header_length);
  if (bad_source4(ip->source, ip->destination)) return set_fault(p, counter_id::drop_bad_source);
  p.kind = parse_kind::flow;
  if (ip->is_fragment()) {
    const unsigned bits = ip->fragment.host();
    const std::uint32_t offset = (bits & ipv4_header::offset_mask) * 8u;
    if (!possible_fragment(offset, (bits & ipv4_header::more_fragments) != 0,
                           ip_length - header_length, p.protocol))
      return set_fault(p, counter_id::drop_fragment);
    p.kind =
        offset == 0 && is_transport(p.protocol) ? parse_kind::first_fragment : parse_kind::fragment;
  }
  if (!is_transport(p.protocol)) {
    if (p.kind != parse_kind::fragment) p.kind = parse_kind::other;
    return;
  }
  // RFC 1812 section 5.3.1. After the protocol: what the kernel answers for the VIP (a
  // ping) has arrived, and may have a TTL of 1.
  if (ip->ttl <= 1) return set_fault(p, counter_id::drop_ttl_expired);
  if (p.kind != parse_kind::fragment) parse_l4(p, bytes, p.kind);
}

// Walks the extension headers (RFC 8200 section 4.1) up to the transport header. False:
// p is complete.
bool walk_extensions(parsed& p, std::span<const std::byte> bytes) noexcept {
  std::uint32_t offset = p.l3 + std::uint32_t{sizeof(ipv6_header)};
  const std::uint32_t end = p.l3 + p.ip_length;
  for (unsigned i = 0; i <= max_ipv6_extensions; ++i) {
    const auto proto = static_cast<ip_proto>(p.protocol);
    p.l4 = static_cast<std::uint16_t>(offset);
    switch (proto) {
      case ip_proto::tcp:
      case ip_proto::udp:
        return true;
      case ip_proto::hop_by_hop:
      case ip_proto::routing:
      case ip_proto::dest_options:
      case ip_proto::ah: {
        const auto* extension = at<ipv6_extension>(bytes, offset);
        if (extension == nullptr || offset + sizeof(ipv6_extension) > end) {
          set_fault(p, counter_id::drop_truncated);
          return false;
        }
        // Hop-by-hop only directly behind the IPv6 header (section 4.1). A routing header
        // with segments left names another destination (section 4.4; type 0: RFC 5095).
        if ((proto == ip_proto::hop_by_hop && i != 0) ||
            (proto == ip_proto::routing && extension->segments_left != 0)) {
          set_fault(p, counter_id::drop_bad_ipv6_header);
          return false;
        }
        p.protocol = extension->next_header;
        offset += proto == ip_proto::ah ? (extension->length + 2u) * 4  // RFC 4302 section 2.2
                                        : (extension->length + 1u) * 8;
        break;
      }
      case ip_proto::fragment: {
        const auto* fragment = at<ipv6_fragment>(bytes, offset);
        if (fragment == nullptr || offset + sizeof(ipv6_fragment) > end) {
          set_fault(p, counter_id::drop_truncated);
          return false;
        }
        p.protocol = fragment->next_header;
        offset += std::uint32_t{sizeof(ipv6_fragment)};
        if (fragment->is_atomic()) break;
        const unsigned bits = fragment->offset_more.host();
        if (p.kind == parse_kind::first_fragment ||  // a fragment of a fragment
            !possible_fragment(bits & ipv6_fragment::offset_mask,
                               (bits & ipv6_fragment::more_fragments) != 0, end - offset,
                               p.protocol)) {
          set_fault(p, counter_id::drop_fragment);
          return false;
        }
        p.fragment_at = p.l4;
        p.kind = parse_kind::first_fragment;
        if ((bits & ipv6_fragment::offset_mask) != 0) {
          p.l4 = static_cast<std::uint16_t>(offset);
          p.kind = parse_kind::fragment;
          return true;
        }
        break;
      }
      default:
        p.kind = p.kind == parse_kind::first_fragment ? parse_kind::fragment : parse_kind::other;
        return false;
    }
    if (offset > end) {
      set_fault(p, counter_id::drop_truncated);
      return false;
    }
  }
  set_fault(p, counter_id::drop_bad_ipv6_header);
  return false;
}

void parse_ipv6(parsed& p, std::span<const std::byte> bytes, std::uint32_t total_length) noexcept {
  const auto* ip = at<ipv6_header>(bytes, p.l3);
  if (ip == nullptr) return void(unreadable(p, counter_id::drop_truncated));
  if (ip->version() != 6) return void(unreadable(p, counter_id::drop_bad_ipv6_header));
  // A mapped destination would be looked up as the IPv4 VIP that it is not.
  if (ip_address{ip->destination}.is_v4())
    return void(unreadable(p, counter_id::drop_bad_ipv6_header));
  p.protocol = ip->next_header;
  // RFC 8200 section 3, payload length. Jumbograms (RFC 2675) say 0 and end as truncated.
  const std::uint32_t ip_length = std::uint32_t{sizeof(ipv6_header)} + ip->payload_length.host();
  if (ip_length > total_length - p.l3) return set_fault(p, counter_id::drop_truncated);
  p.ip_length = ip_length;
  if (bad_source6(*ip)) return set_fault(p, counter_id::drop_bad_source);
  p.kind = parse_kind::flow;
  if (!walk_extensions(p, bytes)) return;
  // RFC 8200 section 3, hop limit.
  if (ip->hop_limit <= 1) return set_fault(p, counter_id::drop_ttl_expired);
  if (p.kind != parse_kind::fragment) parse_l4(p, bytes, p.kind);
}

}  // namespace

parsed parse_any(const std::byte* frame, std::uint32_t length,
                 std::uint32_t total_length) noexcept {
  parsed p{};
  const std::span bytes{frame, length < total_length ? length : total_length};
  const auto* ethernet = at<ethernet_header>(bytes, 0);
  if (ethernet == nullptr) return unreadable(p, counter_id::drop_truncated);
  std::uint32_t offset = sizeof(ethernet_header);
  be16 type = ethernet->type;
  for (unsigned tags = 0; type == be16{static_cast<std::uint16_t>(ether_type::vlan)} ||
                          type == be16{static_cast<std::uint16_t>(ether_type::qinq)};
       ++tags) {
    if (tags == max_vlan_tags) {
      p.kind = parse_kind::not_ip;
      return p;
    }
    const auto* tag = at<vlan_header>(bytes, offset);
    if (tag == nullptr) return unreadable(p, counter_id::drop_truncated);
    type = tag->type;
    offset += std::uint32_t{sizeof(vlan_header)};
  }
  p.l3 = static_cast<std::uint16_t>(offset);
  const auto kind = static_cast<ether_type>(type.host());
  if (kind != ether_type::ipv4 && kind != ether_type::ipv6) {
    p.kind = parse_kind::not_ip;
    return p;
  }
  if (ethernet->is_group()) {
    p.kind = parse_kind::group_frame;
    return p;
  }
  p.version = kind == ether_type::ipv4 ? 4 : 6;
  if (p.version == 4) {
    parse_ipv4(p, bytes, total_length);
  } else {
    parse_ipv6(p, bytes, total_length);
  }
  return p;
}

}  // namespace sluice::wire
