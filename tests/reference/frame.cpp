// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/frame.hpp"

#include <algorithm>

namespace sluice::reference {
namespace {

using abi::counter_id;

// reader: the frame's first `seen` bytes can be read.
struct reader {
  const octets& b;
  std::size_t seen;
  reading r{};

  [[nodiscard]] bool there(std::size_t at, std::size_t n) const { return at + n <= seen; }
  [[nodiscard]] address address_at(std::size_t at, std::uint8_t size) const {
    address a{size, {}};
    std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(at), size, a.bytes.begin());
    return a;
  }
  reading fault(counter_id why) {
    r.what = reading::kind::fault;
    r.fault = why;
    return r;
  }
  reading unreadable(counter_id why) {
    r.what = reading::kind::unreadable;
    r.fault = why;
    return r;
  }

  // RFC 791 section 3.2, RFC 8200 section 4.5, RFC 3128 section 2.2: a payload of whole 8-byte
  // units in all but the last one, none beyond 65535, none that overwrites TCP's flags.
  [[nodiscard]] bool possible(std::size_t offset, bool more, std::size_t payload) const {
    if (payload == 0) return false;
    if (offset + payload > 65535) return false;
    if (more && payload % 8 != 0) return false;
    return offset != 8 || r.protocol != 6;
  }

  reading transport(bool whole) {
    const std::size_t length = r.l3 + r.ip_length - r.l4;
    const bool tcp = r.protocol == 6;
    const std::size_t header = tcp ? 20 : 8;
    if (!there(r.l4, header) || length < header) return fault(counter_id::drop_truncated);
    if (tcp) {
      const std::size_t offset = static_cast<std::size_t>(b[r.l4 + 12] >> 4) * 4;
      if (offset < 20 || offset > length) return fault(counter_id::drop_bad_l4_header);
      r.tcp_flags = b[r.l4 + 13];
    } else {
      const std::size_t said = get16(b, r.l4 + 4);
      if (said < 8) return fault(counter_id::drop_bad_l4_header);
      if (whole && said > length) return fault(counter_id::drop_bad_l4_header);
    }
    r.source_port = get16(b, r.l4);
    r.destination_port = get16(b, r.l4 + 2);
    r.what = whole ? reading::kind::flow : reading::kind::first_fragment;
    return r;
  }

  reading ipv4() {
    const std::size_t at = r.l3;
    r.version = 4;
    if (!there(at, 20)) return unreadable(counter_id::drop_truncated);
    if (b[at] >> 4 != 4) return unreadable(counter_id::drop_bad_ipv4_header);
    r.source = address_at(at + 12, 4);
    r.destination = address_at(at + 16, 4);
    r.protocol = b[at + 9];
    r.hops = b[at + 8];
    r.tos = b[at + 1];
    const unsigned fragment = get16(b, at + 6);
    r.dont_fragment = (fragment & 0x4000) != 0;
    r.id = get16(b, at + 4);
    const std::size_t header = (b[at] & 15u) * 4u;
    const std::size_t length = get16(b, at + 2);
    if (header < 20) return fault(counter_id::drop_bad_ipv4_header);
    if (!there(at, header)) return fault(counter_id::drop_truncated);
    if (length < header) return fault(counter_id::drop_bad_ipv4_header);
    if (at + length > b.size()) return fault(counter_id::drop_truncated);
    if (ones_sum(b, at, header) != 0xffff) return fault(counter_id::drop_bad_ipv4_checksum);
    r.ip_length = length;
    r.l4 = at + header;
    r.plain = header == 20;
    const auto& s = r.source.bytes;
    const bool broadcast = s[0] == 255 && s[1] == 255 && s[2] == 255 && s[3] == 255;
    const bool multicast = s[0] >= 224 && s[0] <= 239;
    if (s[0] == 0 || s[0] == 127 || multicast || broadcast || r.source == r.destination)
      return fault(counter_id::drop_bad_source);
    const std::size_t offset = (fragment & 0x1fff) * std::size_t{8};
    const bool more = (fragment & 0x2000) != 0;
    const bool in_pieces = offset != 0 || more;
    if (in_pieces && !possible(offset, more, length - header))
      return fault(counter_id::drop_fragment);
    if (r.protocol != 6 && r.protocol != 17) {
      r.what = in_pieces ? reading::kind::fragment : reading::kind::other;
      return r;
    }
    if (r.hops < 2) return fault(counter_id::drop_ttl_expired);
    if (offset != 0) {
      r.what = reading::kind::fragment;
      return r;
    }
    return transport(!in_pieces);
  }

  reading ipv6() {
    const std::size_t at = r.l3;
    r.version = 6;
    if (!there(at, 40)) return unreadable(counter_id::drop_truncated);
    if (b[at] >> 4 != 6) return unreadable(counter_id::drop_bad_ipv6_header);
    r.source = address_at(at + 8, 16);
    r.destination = address_at(at + 24, 16);
    if (mapped(r.destination)) return unreadable(counter_id::drop_bad_ipv6_header);
    r.protocol = b[at + 6];
    r.hops = b[at + 7];
    r.tos = (b[at] & 15u) << 4 | b[at + 1] >> 4;
    const std::size_t end = at + 40 + get16(b, at + 4);
    if (end > b.size()) return fault(counter_id::drop_truncated);
    r.ip_length = end - at;
    if (r.source.bytes[0] == 0xff || r.source == r.destination || mapped(r.source) ||
        small(r.source))
      return fault(counter_id::drop_bad_source);
    std::size_t next = at + 40;
    bool pieces = false;
    for (unsigned headers = 0;; ++headers) {
      r.l4 = next;
      r.plain = headers == 0;
      const bool options = r.protocol == 0 || r.protocol == 60;
      const bool routing = r.protocol == 43;
      const bool authentication = r.protocol == 51;
      const bool fragment = r.protocol == 44;
      if (!options && !routing && !authentication && !fragment) break;
      const std::size_t least = fragment ? 8 : 4;
      if (!there(next, least) || next + least > end) return fault(counter_id::drop_truncated);
      if (r.protocol == 0 && headers != 0) return fault(counter_id::drop_bad_ipv6_header);
      if (routing && b[next + 3] != 0) return fault(counter_id::drop_bad_ipv6_header);
      r.protocol = b[next];
      if (fragment) {
        const unsigned word = get16(b, next + 2);
        const std::size_t offset = word & 0xfff8u;
        const bool more = (word & 1) != 0;
        next += 8;
        if (offset != 0 || more) {
          if (pieces || !possible(offset, more, end - next))
            return fault(counter_id::drop_fragment);
          pieces = true;
          r.id = get16(b, next - 4) << 16 | get16(b, next - 2);
          if (offset != 0) {
            if (r.hops < 2) return fault(counter_id::drop_ttl_expired);
            r.l4 = next;
            r.what = reading::kind::fragment;
            return r;
          }
        }
      } else {
        const std::size_t units = b[next + 1];
        next += authentication ? (units + 2) * 4 : (units + 1) * 8;
      }
      if (next > end) return fault(counter_id::drop_truncated);
      if (headers == 8) return fault(counter_id::drop_bad_ipv6_header);  // more than 8 of them
    }
    if (r.protocol != 6 && r.protocol != 17) {
      r.what = pieces ? reading::kind::fragment : reading::kind::other;
      return r;
    }
    if (r.hops < 2) return fault(counter_id::drop_ttl_expired);
    return transport(!pieces);
  }

  // mapped(): ::ffff:0:0/96, RFC 4291 section 2.5.5.2. small(): :: and ::1.
  static bool mapped(const address& a) {
    for (std::size_t i = 0; i < 10; ++i)
      if (a.bytes[i] != 0) return false;
    return a.bytes[10] == 0xff && a.bytes[11] == 0xff;
  }
  static bool small(const address& a) {
    for (std::size_t i = 0; i < 15; ++i)
      if (a.bytes[i] != 0) return false;
    return a.bytes[15] <= 1;
  }
};

}  // namespace

unsigned ones_sum(const octets& b, std::size_t from, std::size_t n, unsigned start) {
  std::uint32_t sum = start;
  for (std::size_t i = 0; i < n; i += 2) {
    const unsigned low = i + 1 < n ? b[from + i + 1] : 0u;
    sum += static_cast<unsigned>(b[from + i]) << 8 | low;
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return sum;
}

reading read(const frame& f) {
  reader in{f.bytes, std::min(f.contiguous, f.bytes.size())};
  if (!in.there(0, 14)) return in.unreadable(counter_id::drop_truncated);
  unsigned type = get16(f.bytes, 12);
  std::size_t at = 14;
  for (unsigned tags = 0; type == 0x8100 || type == 0x88a8; ++tags, at += 4) {
    if (tags == 2) return in.r;
    if (!in.there(at, 4)) return in.unreadable(counter_id::drop_truncated);
    type = get16(f.bytes, at + 2);
  }
  in.r.l3 = at;
  if (type != 0x0800 && type != 0x86dd) return in.r;
  if ((f.bytes[0] & 1) != 0) {
    in.r.what = reading::kind::group;
    return in.r;
  }
  return type == 0x0800 ? in.ipv4() : in.ipv6();
}

}  // namespace sluice::reference
