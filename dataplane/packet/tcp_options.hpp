// SPDX-License-Identifier: Apache-2.0
// The options of a TCP header (RFC 9293 section 3.1). Pure: bytes and values, no mbufs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::wire {

inline constexpr std::uint8_t tcp_option_mss = 2;

// for_option() calls fn(kind, bytes behind kind and length) for each well-formed option.
template <class Function>
void for_option(std::span<std::byte> options, Function&& fn) noexcept {
  for (std::size_t at = 0; at < options.size();) {
    const auto kind = static_cast<std::uint8_t>(options[at]);
    if (kind == 0) return;
    if (kind == 1) {
      ++at;
      continue;
    }
    if (at + 2 > options.size()) return;
    const auto length = static_cast<std::uint8_t>(options[at + 1]);
    if (length < 2 || at + length > options.size()) return;
    fn(kind, options.subspan(at + 2, length - 2u));
    at += length;
  }
}

// clamp_mss() lowers the MSS (RFC 9293 section 3.7.1) that the TCP header at `at` announces to
// `most` (host order) and keeps the checksum right; returns whether it did. For paths that a
// tunnel has made narrower than their ends know. `available`: bytes that may be read. A SYN
// without the option is left alone: its sender assumes 536 or 1220, which fits.
inline bool clamp_mss(std::byte* at, std::uint32_t available, std::uint16_t most) noexcept {
  if (available < sizeof(tcp_header)) return false;
  auto& tcp = *reinterpret_cast<tcp_header*>(at);
  const std::uint32_t end = std::min<std::uint32_t>(tcp.header_length(), available);
  if (end < sizeof tcp) return false;
  const std::span<std::byte> options{at + sizeof tcp, end - sizeof tcp};
  // An option may begin at an odd place: the sum is over all of them.
  const std::uint64_t before = sum(options);
  bool found = false;
  bool lowered = false;
  for_option(options, [&](std::uint8_t kind, std::span<std::byte> value) {
    if (kind != tcp_option_mss || value.size() != 2 || found) return;
    found = true;
    be16 mss;
    std::memcpy(&mss, value.data(), 2);
    if (mss.host() <= most) return;
    mss = be16{most};
    std::memcpy(value.data(), &mss, 2);
    lowered = true;
  });
  if (lowered) tcp.checksum = changed(tcp.checksum, before, sum(options));
  return lowered;
}

}  // namespace sluice::wire
