// SPDX-License-Identifier: Apache-2.0
// Datagrams in pieces, for tests; see frame_builder.hpp.
#pragma once

#include <algorithm>
#include <vector>

#include "tests/packet/frame_builder.hpp"

namespace sluice::test {

// cut4() and cut6() make fragments of `piece` bytes (a multiple of 8) of an L4 packet.
inline std::vector<bytes> cut4(ip4_fields f, const bytes& l4, std::size_t piece) {
  std::vector<bytes> out;
  for (std::size_t at = 0; at < l4.size(); at += piece) {
    const std::size_t end = std::min(at + piece, l4.size());
    f.fragment = static_cast<unsigned>(at / 8) | (end < l4.size() ? 0x2000u : 0u);
    out.push_back(ip4(f, bytes(l4.begin() + static_cast<std::ptrdiff_t>(at),
                               l4.begin() + static_cast<std::ptrdiff_t>(end))));
  }
  return out;
}
inline std::vector<bytes> cut6(ip6_fields f, unsigned protocol, const bytes& l4,
                               std::size_t piece) {
  std::vector<bytes> out;
  f.next = 44;
  for (std::size_t at = 0; at < l4.size(); at += piece) {
    const std::size_t end = std::min(at + piece, l4.size());
    out.push_back(ip6(f, fragment6(protocol, static_cast<unsigned>(at) | (end < l4.size())) +
                             bytes(l4.begin() + static_cast<std::ptrdiff_t>(at),
                                   l4.begin() + static_cast<std::ptrdiff_t>(end))));
  }
  return out;
}

}  // namespace sluice::test
