// SPDX-License-Identifier: Apache-2.0
// A frame, and what an independent reader sees in it: byte by byte, as the RFCs say.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/abi/counters.hpp"
#include "tests/reference/description.hpp"

namespace sluice::reference {

struct frame {
  octets bytes{};             // all of it
  std::size_t contiguous{0};  // of these, what lies in the first buffer
  unsigned headroom{128};     // bytes of room before it
  unsigned in_port{0};
};

inline unsigned get16(const octets& b, std::size_t at) {
  return static_cast<unsigned>(b[at]) << 8 | b[at + 1];
}
inline void set16(octets& b, std::size_t at, unsigned value) {
  b[at] = static_cast<std::uint8_t>(value >> 8);
  b[at + 1] = static_cast<std::uint8_t>(value);
}
inline void add16(octets& b, unsigned value) {
  b.push_back(static_cast<std::uint8_t>(value >> 8));
  b.push_back(static_cast<std::uint8_t>(value));
}

inline void append(octets& to, const octets& what) {
  to.insert(to.end(), what.begin(), what.end());
}
inline void append(octets& to, const address& a) {
  to.insert(to.end(), a.bytes.begin(), a.bytes.begin() + a.size);
}

// ones_sum() is the one's complement sum of RFC 1071 over n bytes, from `start` on.
unsigned ones_sum(const octets& b, std::size_t from, std::size_t n, unsigned start = 0);

struct reading {
  enum class kind {
    flow,            // a whole TCP or UDP packet
    first_fragment,  // of TCP or UDP, with ports
    fragment,        // without ports
    other,           // a whole IP packet of another protocol
    fault,           // the addresses can be read, and something is wrong
    unreadable,
    not_ip,
    group,  // Ethernet broadcast or multicast
  };
  kind what{kind::not_ip};
  abi::counter_id fault{abi::counter_id::count_};
  unsigned version{0};
  unsigned protocol{0};
  std::size_t l3{0};  // offsets from the frame's first byte
  std::size_t l4{0};
  std::size_t ip_length{0};
  address source{};
  address destination{};
  unsigned hops{0};          // TTL or hop limit
  unsigned tos{0};           // or traffic class
  bool dont_fragment{true};  // IPv4: DF
  unsigned source_port{0};
  unsigned destination_port{0};
  unsigned tcp_flags{0};
  std::uint32_t id{0};  // of the datagram that a fragment is part of
  bool plain{true};     // no IP options, no extension headers
};

reading read(const frame& f);

}  // namespace sluice::reference
