// SPDX-License-Identifier: Apache-2.0
// Frames for tests, byte by byte and on purpose without the headers and checksums of
// dataplane/packet: what is expected must not come from what is tested.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

namespace sluice::test {

using bytes = std::vector<std::uint8_t>;

inline void put8(bytes& b, unsigned v) {
  b.push_back(static_cast<std::uint8_t>(v));
}
inline void put16(bytes& b, unsigned v) {
  put8(b, v >> 8);
  put8(b, v & 0xff);
}
inline void put32(bytes& b, std::uint32_t v) {
  put16(b, v >> 16);
  put16(b, v & 0xffff);
}
inline void append(bytes& to, const bytes& what) {
  to.insert(to.end(), what.begin(), what.end());
}
inline bytes operator+(bytes a, const bytes& b) {
  append(a, b);
  return a;
}

// checksum_of() is RFC 1071 as its text says: 16-bit words, big-endian, carries added.
inline unsigned checksum_of(const bytes& b, std::size_t from, std::size_t n) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < n; i += 2) {
    const unsigned high = b[from + i];
    const unsigned low = i + 1 < n ? b[from + i + 1] : 0u;
    sum += high << 8 | low;
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return ~sum & 0xffff;
}

using mac = std::array<std::uint8_t, 6>;
inline constexpr mac client_mac{2, 0, 0, 0, 0, 0xc1};
inline constexpr mac our_mac{2, 0, 0, 0, 0, 0x01};

struct tag {
  unsigned type;
  unsigned control;
};

inline bytes ethernet(unsigned type, const bytes& payload, const std::vector<tag>& tags = {},
                      const mac& to = our_mac, const mac& from = client_mac) {
  bytes b;
  b.insert(b.end(), to.begin(), to.end());
  b.insert(b.end(), from.begin(), from.end());
  for (const tag& t : tags) {
    put16(b, t.type);
    put16(b, t.control);
  }
  put16(b, type);
  append(b, payload);
  return b;
}
inline bytes padded(bytes b, std::size_t to) {
  while (b.size() < to) put8(b, 0xee);
  return b;
}

struct tcp_fields {
  unsigned source{40000};
  unsigned destination{443};
  unsigned flags{0x02};
  unsigned data_offset{5};
  bytes options{};
  std::uint32_t sequence{0x11223344};
  std::uint32_t acknowledgement{0x55667788};
};
inline bytes tcp(const tcp_fields& f, const bytes& payload = {}) {
  bytes b;
  put16(b, f.source);
  put16(b, f.destination);
  put32(b, f.sequence);
  put32(b, f.acknowledgement);
  put8(b, f.data_offset << 4);
  put8(b, f.flags);
  put16(b, 0xfaf0);
  put16(b, 0xbeef);  // never looked at, never changed
  put16(b, 0);
  return b + f.options + payload;
}

struct udp_fields {
  unsigned source{40000};
  unsigned destination{53};
  std::optional<unsigned> length{};
};
inline bytes udp(const udp_fields& f, const bytes& payload = {}) {
  bytes b;
  put16(b, f.source);
  put16(b, f.destination);
  put16(b, f.length.value_or(static_cast<unsigned>(8 + payload.size())));
  put16(b, 0xcafe);
  return b + payload;
}

using quad = std::array<std::uint8_t, 4>;
struct ip4_fields {
  quad source{203, 0, 113, 7};
  quad destination{198, 51, 100, 10};
  unsigned protocol{6};
  unsigned ttl{61};
  unsigned tos{0};
  unsigned id{0x1234};
  unsigned fragment{0x4000};
  bytes options{};
  unsigned version{4};
  std::optional<unsigned> ihl{};
  std::optional<unsigned> total_length{};
  unsigned checksum_error{0};
};
inline bytes ip4(const ip4_fields& f, const bytes& payload) {
  bytes b;
  const auto header = static_cast<unsigned>(20 + f.options.size());
  put8(b, f.version << 4 | f.ihl.value_or(header / 4));
  put8(b, f.tos);
  put16(b, f.total_length.value_or(static_cast<unsigned>(header + payload.size())));
  put16(b, f.id);
  put16(b, f.fragment);
  put8(b, f.ttl);
  put8(b, f.protocol);
  put16(b, 0);
  b.insert(b.end(), f.source.begin(), f.source.end());
  b.insert(b.end(), f.destination.begin(), f.destination.end());
  append(b, f.options);
  const unsigned sum = checksum_of(b, 0, header) ^ f.checksum_error;
  b[10] = static_cast<std::uint8_t>(sum >> 8);
  b[11] = static_cast<std::uint8_t>(sum);
  return b + payload;
}

using hexadec = std::array<std::uint8_t, 16>;
inline constexpr hexadec client6{0x20, 0x01, 0x0d, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7};
inline constexpr hexadec vip6{0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10};
struct ip6_fields {
  hexadec source{client6};
  hexadec destination{vip6};
  unsigned next{6};
  unsigned hop_limit{61};
  unsigned traffic_class{0};
  std::uint32_t label{0xabcde};
  unsigned version{6};
  std::optional<unsigned> payload_length{};
};
inline bytes ip6(const ip6_fields& f, const bytes& payload) {
  bytes b;
  put32(b, f.version << 28 | f.traffic_class << 20 | f.label);
  put16(b, f.payload_length.value_or(static_cast<unsigned>(payload.size())));
  put8(b, f.next);
  put8(b, f.hop_limit);
  b.insert(b.end(), f.source.begin(), f.source.end());
  b.insert(b.end(), f.destination.begin(), f.destination.end());
  return b + payload;
}
// extension() is a hop-by-hop, routing or destination options header of (n + 1) * 8 bytes.
inline bytes extension(unsigned next, unsigned n = 0, unsigned segments_left = 0) {
  bytes b;
  put8(b, next);
  put8(b, n);
  put8(b, 1);  // PadN, or a routing type
  put8(b, segments_left);
  return padded(b, (n + 1) * 8u);
}
inline bytes fragment6(unsigned next, unsigned offset_more) {
  bytes b;
  put8(b, next);
  put8(b, 0);
  put16(b, offset_more);
  put32(b, 0xfeedf00d);
  return b;
}

// summed() sets the TCP or UDP checksum of a whole IP packet right, computed over all of it.
inline bytes summed(bytes ip) {
  const bool v4 = ip[0] >> 4 == 4;
  std::size_t l4 = v4 ? (ip[0] & 15u) * 4 : 40;
  unsigned protocol = v4 ? ip[9] : ip[6];
  for (; !v4 && (protocol == 0 || protocol == 60); l4 += (ip[l4 + 1] + 1u) * 8) protocol = ip[l4];
  const std::size_t at = l4 + (protocol == 6 ? 16 : 6);
  ip[at] = ip[at + 1] = 0;
  bytes covered(ip.begin() + (v4 ? 12 : 8), ip.begin() + (v4 ? 20 : 40));
  put16(covered, protocol);
  put16(covered, static_cast<unsigned>(ip.size() - l4));
  covered.insert(covered.end(), ip.begin() + static_cast<std::ptrdiff_t>(l4), ip.end());
  unsigned sum = checksum_of(covered, 0, covered.size());
  if (protocol == 17 && sum == 0) sum = 0xffff;
  ip[at] = static_cast<std::uint8_t>(sum >> 8);
  ip[at + 1] = static_cast<std::uint8_t>(sum);
  return ip;
}

inline std::string hex(const bytes& b) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string s;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (i != 0) s += i % 16 == 0 ? '\n' : ' ';
    s += digits[b[i] >> 4];
    s += digits[b[i] & 0xf];
  }
  return s;
}

}  // namespace sluice::test
