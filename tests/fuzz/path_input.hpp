// SPDX-License-Identifier: Apache-2.0
// How bytes of the fuzzer become packets: records of a flags byte, a length (two bytes,
// low first) and that many bytes of frame, as far as they are there.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/packet/bench.hpp"

namespace sluice::test {

enum fuzz_flags : std::uint8_t {
  fuzz_fix_checksum = 1,  // set the IPv4 header checksum right: the fuzzer cannot guess it
  fuzz_kernel_port = 2,
  fuzz_headroom = 12,     // two bits: which of fuzz_headrooms
  fuzz_new_burst = 16,    // run what came before
  fuzz_time_passes = 32,  // 20 s, between the bursts
  fuzz_chained = 64,      // only the first 64 bytes are contiguous
  fuzz_fix_icmp = 128,    // set the ICMP or ICMPv6 checksum right
};
inline constexpr std::array<std::uint16_t, 4> fuzz_headrooms{128, 40, 20, 0};

// fix_checksum() repairs the header checksum of an IPv4 packet behind up to two tags.
inline void fix_checksum(bytes& frame) {
  std::size_t l3 = 14;
  for (int tags = 0; tags < 2 && frame.size() >= l3; ++tags) {
    const unsigned type = static_cast<unsigned>(frame[l3 - 2]) << 8 | frame[l3 - 1];
    if (type != 0x8100 && type != 0x88a8) break;
    l3 += 4;
  }
  if (frame.size() < l3 + 20) return;
  if (frame[l3 - 2] != 0x08 || frame[l3 - 1] != 0x00) return;
  const std::size_t header = (frame[l3] & 0xfu) * 4;
  if (header < 20 || frame.size() < l3 + header) return;
  frame[l3 + 10] = frame[l3 + 11] = 0;
  const unsigned sum = checksum_of(frame, l3, header);
  frame[l3 + 10] = static_cast<std::uint8_t>(sum >> 8);
  frame[l3 + 11] = static_cast<std::uint8_t>(sum);
}

// fix_icmp() repairs the checksum of an ICMP message directly behind an IP header.
inline void fix_icmp(bytes& frame) {
  std::size_t l3 = 14;
  for (int tags = 0; tags < 2 && frame.size() >= l3; ++tags) {
    const unsigned type = static_cast<unsigned>(frame[l3 - 2]) << 8 | frame[l3 - 1];
    if (type != 0x8100 && type != 0x88a8) break;
    l3 += 4;
  }
  if (frame.size() < l3 + 40) return;
  const bool v4 = frame[l3] >> 4 == 4;
  if (!v4 && frame[l3] >> 4 != 6) return;
  const auto word = [&](std::size_t at) {
    return static_cast<std::size_t>(frame[at]) << 8 | frame[at + 1];
  };
  if (frame[l3 + (v4 ? 9u : 6u)] != (v4 ? 1 : 58)) return;
  const std::size_t message = l3 + (v4 ? (frame[l3] & 0xfu) * 4 : 40u);
  const std::size_t end = l3 + (v4 ? word(l3 + 2) : 40 + word(l3 + 4));
  if (end > frame.size() || message + 8 > end) return;
  frame[message + 2] = frame[message + 3] = 0;
  bytes sum;
  if (!v4) {
    sum.assign(frame.begin() + static_cast<std::ptrdiff_t>(l3) + 8,
               frame.begin() + static_cast<std::ptrdiff_t>(l3) + 40);
    put32(sum, static_cast<std::uint32_t>(end - message));
    put32(sum, 58);
  }
  sum.insert(sum.end(), frame.begin() + static_cast<std::ptrdiff_t>(message),
             frame.begin() + static_cast<std::ptrdiff_t>(end));
  const unsigned right = checksum_of(sum, 0, sum.size());
  frame[message + 2] = static_cast<std::uint8_t>(right >> 8);
  frame[message + 3] = static_cast<std::uint8_t>(right);
}

struct fuzz_record {
  std::uint8_t flags;
  input in;
};

inline std::vector<fuzz_record> records_of(const std::uint8_t* data, std::size_t size) {
  std::vector<fuzz_record> records;
  while (size >= 3 && records.size() < 1000) {
    const std::uint8_t flags = data[0];
    const std::size_t wanted = data[1] | static_cast<std::size_t>(data[2]) << 8;
    data += 3;
    size -= 3;
    const std::size_t n = std::min(wanted, size);
    fuzz_record r{flags, {bytes(data, data + n)}};
    data += n;
    size -= n;
    if ((flags & fuzz_fix_checksum) != 0) fix_checksum(r.in.frame);
    if ((flags & fuzz_fix_icmp) != 0) fix_icmp(r.in.frame);
    r.in.in_port = (flags & fuzz_kernel_port) != 0 ? kernel_port : wire_port;
    r.in.headroom = fuzz_headrooms[(flags & fuzz_headroom) >> 2];
    if ((flags & fuzz_chained) != 0) r.in.first_segment = 64;
    records.push_back(std::move(r));
  }
  return records;
}

inline void append_record(bytes& to, std::uint8_t flags, const bytes& frame) {
  put8(to, flags);
  put8(to, static_cast<unsigned>(frame.size() & 0xff));
  put8(to, static_cast<unsigned>(frame.size() >> 8));
  append(to, frame);
}

}  // namespace sluice::test
