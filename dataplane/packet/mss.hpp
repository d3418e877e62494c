// SPDX-License-Identifier: Apache-2.0
// Lowering the MSS that a SYN announces (RFC 9293 section 3.7.1), for paths that a tunnel
// has made narrower than their ends know.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

// clamp_mss() lowers the MSS option of the TCP header at `at` to `most` (host order) and
// keeps the checksum right; returns whether it did. `available`: bytes that may be read.
// A SYN without the option is left alone: its sender assumes 536 or 1220, which fits.
inline bool clamp_mss(std::byte* at, std::uint32_t available, std::uint16_t most) noexcept {
  if (available < sizeof(tcp_header)) return false;
  auto& tcp = *reinterpret_cast<tcp_header*>(at);
  const std::uint32_t end = std::min<std::uint32_t>(tcp.header_length(), available);
  const auto byte = [at](std::uint32_t i) { return std::to_integer<unsigned>(at[i]); };
  for (std::uint32_t i = sizeof(tcp_header); i < end;) {
    if (byte(i) == 0) return false;  // end of the list
    if (byte(i) == 1) {              // no operation
      ++i;
      continue;
    }
    if (i + 2 > end) return false;
    const unsigned length = byte(i + 1);
    if (length < 2 || i + length > end) return false;
    if (byte(i) != 2 || length != 4) {
      i += length;
      continue;
    }
    const unsigned was = byte(i + 2) << 8 | byte(i + 3);
    if (was <= most) return false;
    at[i + 2] = static_cast<std::byte>(most >> 8);
    at[i + 3] = static_cast<std::byte>(most & 0xff);
    // At an odd offset its bytes belong to two words of the sum, the other way round.
    be16 before{static_cast<std::uint16_t>(was)};
    be16 after{most};
    if (i % 2 != 0) {
      before = be16::from_raw(byte_swap(before.raw()));
      after = be16::from_raw(byte_swap(after.raw()));
    }
    tcp.checksum = updated(tcp.checksum, before, after);
    return true;
  }
  return false;
}

}  // namespace sluice::wire
