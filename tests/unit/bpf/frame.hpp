// SPDX-License-Identifier: Apache-2.0
// Frames for the tests of the BPF programs, put together from parts:
//   ethernet(0x0800) + ipv4({...}, udp(1000, 53))
#pragma once

#include <arpa/inet.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace sluice::test {

using bytes = std::vector<std::uint8_t>;

inline bytes operator+(bytes a, const bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline bytes u16(unsigned v) {
  return {static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)};
}
inline bytes fill(std::size_t n, std::uint8_t value = 0) {
  return bytes(n, value);
}

inline bytes address(const std::string& text) {
  bytes b(text.find(':') == std::string::npos ? 4 : 16);
  if (inet_pton(b.size() == 4 ? AF_INET : AF_INET6, text.c_str(), b.data()) != 1)
    throw std::invalid_argument{text};
  return b;
}

inline bytes ethernet(unsigned type) {
  return bytes{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2} + u16(type);
}
// vlan() goes between ethernet(0x8100 or 0x88a8) and what is inside.
inline bytes vlan(unsigned id, unsigned type) {
  return u16(id) + u16(type);
}

inline bytes tcp(unsigned source, unsigned destination) {
  return u16(source) + u16(destination) + fill(8) + bytes{0x50, 2} + fill(6) + bytes{'h', 'i'};
}
inline bytes udp(unsigned source, unsigned destination) {
  return u16(source) + u16(destination) + u16(10) + u16(0) + bytes{'h', 'i'};
}

// icmp() is a header of either version; what is quoted follows. The checksum is left out.
inline bytes icmp(unsigned type) {
  return bytes{static_cast<std::uint8_t>(type)} + fill(7);
}

inline std::uint16_t internet_checksum(const bytes& b) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < b.size(); i += 2)
    sum += static_cast<std::uint32_t>(b[i] << 8 | (i + 1 < b.size() ? b[i + 1] : 0));
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

struct ipv4_header {
  std::string source;
  std::string destination;
  unsigned protocol;
  bytes options{};      // a multiple of 4
  unsigned fragment{};  // flags and offset
  unsigned tos{};
  unsigned version_and_length{};  // 0: right
  unsigned total_length{};        // 0: right
  unsigned checksum_error{};      // added to the right one
};

inline bytes ipv4(const ipv4_header& h, const bytes& payload) {
  const std::size_t length = 20 + h.options.size();
  const auto first = h.version_and_length ? h.version_and_length : 0x40 + length / 4;
  const auto total = h.total_length ? h.total_length : length + payload.size();
  const bytes front = bytes{static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(h.tos)} +
                      u16(static_cast<unsigned>(total)) + u16(1) + u16(h.fragment) +
                      bytes{64, static_cast<std::uint8_t>(h.protocol)};
  const bytes back = address(h.source) + address(h.destination) + h.options;
  const unsigned checksum = internet_checksum(front + u16(0) + back) + h.checksum_error;
  return front + u16(checksum) + back + payload;
}

struct ipv6_header {
  std::string source;
  std::string destination;
  unsigned next;
  unsigned traffic_class{};
  unsigned payload_length{};  // 0: right
  unsigned version{6};
};

inline bytes ipv6(const ipv6_header& h, const bytes& payload) {
  const auto length = h.payload_length ? h.payload_length : payload.size();
  return u16(h.version << 12 | h.traffic_class << 4) + u16(0) + u16(static_cast<unsigned>(length)) +
         bytes{static_cast<std::uint8_t>(h.next), 64} + address(h.source) + address(h.destination) +
         payload;
}

// An extension header of 8 * (1 + units) bytes; with_length overrides what it says.
inline bytes extension(unsigned next, unsigned units = 0) {
  return bytes{static_cast<std::uint8_t>(next), static_cast<std::uint8_t>(units)} +
         fill(6 + 8 * units);
}
inline bytes fragment_header(unsigned next, unsigned offset_and_flags) {
  return bytes{static_cast<std::uint8_t>(next), 0} + u16(offset_and_flags) + fill(4, 7);
}

inline bytes cut(bytes b, std::size_t length) {
  b.resize(length);
  return b;
}

}  // namespace sluice::test
