// SPDX-License-Identifier: Apache-2.0
// What full-nat does inside a TCP stream to tell the backend who the client is.
//
// toa       TCP option 254 (as LVS and DPVS write it: port, address; 8 bytes for IPv4, 20 for
//           IPv6), first among the options of every packet of the client until it has
//           acknowledged the first byte of the backend's: handshake ACK and first data.
// proxy-v2  the PROXY protocol header (version 2) becomes the first bytes of the client's
//           stream, on the handshake's ACK, so that a server that speaks first has it, too.
//           Until the backend has acknowledged it every packet that begins where the stream
//           begins carries it again. All later sequence numbers go up by its length; the
//           backend's acknowledgements, SACK blocks included (RFC 2018), go down.
//
// Both lower the MSS in the backend's SYN by what they add, so that it fits. A connection
// whose SYN was not seen is left as it is: the backend resets it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/abi/counters.hpp"
#include "dataplane/connection/tcp_state.hpp"
#include "dataplane/packet/readdress.hpp"
#include "dataplane/packet/tcp_options.hpp"
#include "dataplane/path/nat_table.hpp"
#include "dataplane/path/packet.hpp"

namespace sluice::nat {

inline constexpr std::uint8_t toa_option = 254;  // RFC 4727: for experiments
inline constexpr std::size_t proxy_fixed = 16;   // signature, command, family, length
inline constexpr std::uint32_t longest_insertion = proxy_fixed + 36;

// What is put into one packet, and where; and by how much its sequence number goes up.
struct edit {
  std::uint32_t shift{0};
  std::uint32_t size{0};  // 0: nothing
  std::uint32_t at{0};    // offset from the frame's start
  bool option{false};     // the TCP header grows
  std::array<std::uint8_t, longest_insertion> bytes;
};

inline std::uint32_t added_by(const nat_session& s) noexcept {
  const bool v4 = s.client.is_v4();
  if ((s.flags & nat_proxy) != 0) return proxy_fixed + (v4 ? 12 : 36);
  return (s.flags & nat_toa) != 0 ? (v4 ? 8 : 20) : 0;
}

// client_sequence() is the number that the client gave to what the backend knows as `there`.
inline std::uint32_t client_sequence(const nat_session& s, std::uint32_t there) noexcept {
  if ((s.flags & nat_proxy) == 0 || (s.flags & nat_client_known) == 0) return there;
  const std::uint32_t n = added_by(s);
  if ((s.flags & nat_header_acked) != 0) return there - n;
  const std::uint32_t start = s.client_sequence + 1;
  if (static_cast<std::int32_t>(there - start) <= 0) return there;
  return there - start >= n ? there - n : start;
}

// grown_by() is how much longer we have made the packet whose TCP header, or the first 8 bytes of
// it and more, a quote has at `tcp`: what was cut off counts as there.
inline std::uint32_t grown_by(const nat_session& s, std::span<const std::byte> tcp) noexcept {
  if ((s.flags & (nat_toa | nat_proxy)) == 0 || (s.flags & nat_client_known) == 0) return 0;
  if ((s.flags & nat_proxy) != 0) {
    be32 sequence;
    std::memcpy(&sequence, tcp.data() + offsetof(wire::tcp_header, sequence), 4);
    const bool has = (s.flags & nat_header_acked) == 0 && sequence.host() == s.client_sequence + 1;
    return has ? added_by(s) : 0;
  }
  const auto* header = wire::at<wire::tcp_header>(tcp, 0);
  const bool seen = header != nullptr && tcp.size() > sizeof *header;
  if (seen && (header->header_length() <= sizeof *header ||
               static_cast<std::uint8_t>(tcp[sizeof *header]) != toa_option))
    return 0;
  return added_by(s);
}

inline void write_toa(const nat_session& s, edit& e) noexcept {
  const std::size_t n = s.client.is_v4() ? 4 : 16;
  e.size = static_cast<std::uint32_t>(4 + n);
  e.bytes[0] = toa_option;
  e.bytes[1] = static_cast<std::uint8_t>(e.size);
  std::memcpy(&e.bytes[2], &s.client_port, 2);
  std::memcpy(&e.bytes[4], s.client.bytes.data() + 16 - n, n);
}

inline void write_proxy(const nat_session& s, edit& e) noexcept {
  constexpr std::array<std::uint8_t, 13> start{0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a,
                                               0x51, 0x55, 0x49, 0x54, 0x0a, 0x21};
  const bool v4 = s.client.is_v4();
  const std::size_t n = v4 ? 4 : 16;
  e.size = added_by(s);
  std::uint8_t* to = e.bytes.data();
  std::memcpy(to, start.data(), start.size());
  to[13] = v4 ? 0x11 : 0x21;  // STREAM over IPv4, IPv6
  to[14] = 0;
  to[15] = static_cast<std::uint8_t>(e.size - proxy_fixed);
  std::memcpy(to + 16, s.client.bytes.data() + 16 - n, n);
  std::memcpy(to + 16 + n, s.vip.bytes.data() + 16 - n, n);
  std::memcpy(to + 16 + 2 * n, &s.client_port, 2);
  std::memcpy(to + 18 + 2 * n, &s.vip_port, 2);
}

// to_backend() says what a client's packet of a session needs; changes neither. The result
// is a drop reason, or counter_id::count_.
inline abi::counter_id to_backend(const packet& p, const wire::parsed& m, const nat_session& s,
                                  std::uint32_t mtu, edit& e) noexcept {
  constexpr auto fine = abi::counter_id::count_;
  const bool syn = (m.tcp_flags & connection::tcp_syn) != 0;
  if ((s.flags & (nat_toa | nat_proxy)) == 0 || (s.flags & nat_client_known) == 0) return fine;
  const auto& tcp = *reinterpret_cast<const wire::tcp_header*>(p.data + m.l4);
  const std::uint32_t header = tcp.header_length();
  if (m.l4 + header > p.length) return abi::counter_id::drop_truncated;
  const bool proxy = (s.flags & nat_proxy) != 0;
  if (syn) {
    // Data in a SYN (RFC 7413) would come before the header, and could be a forged one.
    return proxy && m.ip_length > m.l4 - std::uint32_t{m.l3} + header
               ? abi::counter_id::drop_unsupported_protocol
               : fine;
  }
  const bool reset = (m.tcp_flags & connection::tcp_rst) != 0;
  if (!proxy) {
    if (reset || (m.tcp_flags & connection::tcp_ack) == 0 || (s.flags & nat_server_known) == 0 ||
        tcp.acknowledgement.host() != s.server_sequence + 1)
      return fine;
    write_toa(s, e);
    e.at = m.l4 + std::uint32_t{sizeof(wire::tcp_header)};
    e.option = true;
    // What has no room goes without: the next packet has, or the connection works as it is.
    if (header + e.size > 60 || m.ip_length + e.size > mtu || p.headroom < e.size) e.size = 0;
    return fine;
  }
  if ((s.flags & nat_header_acked) != 0) {
    e.shift = added_by(s);
    return fine;
  }
  const auto place = static_cast<std::int32_t>(tcp.sequence.host() - (s.client_sequence + 1));
  if (place > 0) e.shift = added_by(s);
  if (place != 0 || reset || (m.tcp_flags & connection::tcp_ack) == 0) return fine;
  write_proxy(s, e);
  e.at = m.l4 + header;
  if (m.ip_length + e.size > mtu) return abi::counter_id::drop_too_big;
  return p.headroom < e.size ? abi::counter_id::drop_no_headroom : fine;
}

namespace detail {

inline std::uint64_t sum_of(const void* p, std::size_t n) noexcept {
  return wire::sum({static_cast<const std::byte*>(p), n});
}
inline void write32(wire::tcp_header& tcp, be32& field, std::uint32_t value) noexcept {
  const be32 old = field;
  field = be32{value};
  tcp.checksum = wire::changed(tcp.checksum, sum_of(&old, 4), sum_of(&field, 4));
}

}  // namespace detail

// apply() does what to_backend() has said. The frame grows to the front; what is behind the
// IP packet is cut off.
inline void apply(packet& p, wire::parsed& m, const edit& e) noexcept {
  if (e.shift != 0) {
    auto& tcp = *reinterpret_cast<wire::tcp_header*>(p.data + m.l4);
    detail::write32(tcp, tcp.sequence, tcp.sequence.host() + e.shift);
  }
  if (e.size == 0) return;
  const std::uint32_t before = m.ip_length;
  std::byte* const data = p.data - e.size;
  std::memmove(data, p.data, e.at);
  std::memcpy(data + e.at, e.bytes.data(), e.size);
  p.data = data;
  p.headroom = static_cast<std::uint16_t>(p.headroom - e.size);
  p.length += e.size;
  m.ip_length += e.size;
  p.total_length = m.l3 + m.ip_length;
  if (p.length > p.total_length) p.length = p.total_length;
  const auto word = [](std::uint32_t v) { return be16{static_cast<std::uint16_t>(v)}; };
  if (m.version == 4) {
    auto& ip = *reinterpret_cast<wire::ipv4_header*>(data + m.l3);
    ip.total_length = word(m.ip_length);
    ip.checksum = wire::updated(ip.checksum, word(before), ip.total_length);
  } else {
    auto& ip = *reinterpret_cast<wire::ipv6_header*>(data + m.l3);
    ip.payload_length = word(m.ip_length - std::uint32_t{sizeof ip});
  }
  // The pseudo header's length is the IP packet's less what comes before TCP: the difference
  // is the same.
  auto& tcp = *reinterpret_cast<wire::tcp_header*>(data + m.l4);
  std::uint64_t was = word(before).raw();
  std::uint64_t is = word(m.ip_length).raw() + detail::sum_of(e.bytes.data(), e.size);
  if (e.option) {
    was += detail::sum_of(&tcp.data_offset, 2);
    tcp.data_offset = static_cast<std::uint8_t>(tcp.data_offset + (e.size / 4 << 4));
    is += detail::sum_of(&tcp.data_offset, 2);
  }
  tcp.checksum = wire::changed(tcp.checksum, was, is);
}

// from_backend() learns from a reply, and makes its numbers what the client's stream has.
inline void from_backend(packet& p, const wire::parsed& m, nat_session& s) noexcept {
  auto& tcp = *reinterpret_cast<wire::tcp_header*>(p.data + m.l4);
  const bool syn = (m.tcp_flags & connection::tcp_syn) != 0;
  const bool ack = (m.tcp_flags & connection::tcp_ack) != 0;
  if (syn && ack) {
    s.server_sequence = tcp.sequence.host();
    s.flags |= nat_server_known;
  }
  if ((s.flags & (nat_toa | nat_proxy)) == 0 || (s.flags & nat_client_known) == 0) return;
  const std::uint32_t header = tcp.header_length();
  if (m.l4 + header > p.length) return;
  const std::span<std::byte> options{p.data + m.l4 + sizeof tcp, header - sizeof tcp};
  const std::uint32_t n = added_by(s);
  // Options may begin at odd places: the sum is over all of them.
  const std::uint64_t before = wire::sum(options);
  if (syn) {
    wire::for_option(options, [n](std::uint8_t kind, std::span<std::byte> value) {
      if (kind != wire::tcp_option_mss || value.size() != 2) return;
      be16 mss;
      std::memcpy(&mss, value.data(), 2);
      if (mss.host() <= n + 64) return;
      mss = be16{static_cast<std::uint16_t>(mss.host() - n)};
      std::memcpy(value.data(), &mss, 2);
    });
    tcp.checksum = wire::changed(tcp.checksum, before, wire::sum(options));
    return;
  }
  if ((s.flags & nat_proxy) == 0 || !ack) return;
  const std::uint32_t start = s.client_sequence + 1;
  const std::uint32_t place = tcp.acknowledgement.host() - start;
  if ((s.flags & nat_header_acked) == 0) {
    if (static_cast<std::int32_t>(place) <= 0) return;
    if (place >= n) s.flags |= nat_header_acked;
  }
  const bool acked = (s.flags & nat_header_acked) != 0;
  const auto moved = [&](std::uint32_t sequence) {
    return acked || sequence - start >= n ? sequence - n : start;
  };
  detail::write32(tcp, tcp.acknowledgement, moved(tcp.acknowledgement.host()));
  wire::for_option(options, [&moved](std::uint8_t kind, std::span<std::byte> value) {
    if (kind != 5) return;
    for (std::size_t at = 0; at + 4 <= value.size(); at += 4) {
      be32 edge;
      std::memcpy(&edge, value.data() + at, 4);
      edge = be32{moved(edge.host())};
      std::memcpy(value.data() + at, &edge, 4);
    }
  });
  tcp.checksum = wire::changed(tcp.checksum, before, wire::sum(options));
}

}  // namespace sluice::nat
