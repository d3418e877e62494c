// SPDX-License-Identifier: Apache-2.0
// The server id in a QUIC packet's connection id, as draft-ietf-quic-load-balancers puts it
// there in plain text: the id's first byte (rotation bits, length), then the server id.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace sluice::quic {

// server_id: its bytes, left-aligned, as in backend_row::quic_id; length 0: there is none.
struct server_id {
  std::uint64_t bytes{0};
  std::uint8_t length{0};
};

namespace detail {

inline constexpr std::size_t max_connection_id = 20;  // RFC 9000 section 17.2

// RFC 9000 section 17.2 and RFC 9369 section 3.2: the packet types of which the client took
// the destination connection id from the server.
inline bool has_server_chosen_id(std::uint8_t first, std::uint32_t version) noexcept {
  const unsigned type = (first >> 4) & 3u;
  if (version == 1) return type == 2;           // Handshake
  if (version == 0x6b3343cf) return type == 3;  // the same in version 2
  return false;
}

}  // namespace detail

// find_server_id() looks into a datagram for the `length` bytes (1 to 8) behind the first
// `offset` of the destination connection id. None in: an Initial or 0-RTT packet, whose id may
// be of the client's choosing; a long header of a version that we do not know; an id that says
// of itself that it cannot be routed by (draft section 3.1, rotation bits 0b111); anything that
// is too short.
[[nodiscard]] inline server_id find_server_id(std::span<const std::byte> datagram, unsigned offset,
                                              unsigned length) noexcept {
  if (length < 1 || length > 8 || offset + length > detail::max_connection_id || datagram.empty())
    return {};
  const auto first = static_cast<std::uint8_t>(datagram[0]);
  std::size_t at;      // of the connection id
  std::size_t id_end;  // as far as is known
  if ((first & 0x80) == 0) {
    // RFC 8999 section 5.2. How long the id is, only the server knows. The fixed bit (RFC 9000
    // section 17.3.1) may be greased (RFC 9287): not looked at.
    at = 1;
    id_end = datagram.size();
  } else {
    // RFC 8999 section 5.1: version, length of the id, the id.
    if (datagram.size() < 6) return {};
    std::uint32_t version = 0;
    for (std::size_t i = 1; i < 5; ++i)
      version = version << 8 | static_cast<std::uint8_t>(datagram[i]);
    if (!detail::has_server_chosen_id(first, version)) return {};
    const auto id_length = static_cast<std::size_t>(datagram[5]);
    if (id_length > detail::max_connection_id) return {};
    at = 6;
    id_end = at + id_length;
    if (id_end > datagram.size()) return {};
  }
  if (at + offset + length > id_end) return {};
  if (offset != 0 && (static_cast<unsigned>(datagram[at]) & 0xe0u) == 0xe0) return {};
  server_id id;
  id.length = static_cast<std::uint8_t>(length);
  std::memcpy(&id.bytes, datagram.data() + at + offset, length);
  return id;
}

}  // namespace sluice::quic
