// SPDX-License-Identifier: Apache-2.0
// parse_common4() and 6 are shortcuts: whatever they take, parse_any() must take the same way.
#include "dataplane/packet/parse.hpp"

#include <gtest/gtest.h>

#include <random>
#include <span>

#include "tests/packet/frame_builder.hpp"

namespace sluice::wire {
namespace {

using test::bytes;

std::span<const std::byte> view(const bytes& b) {
  return std::as_bytes(std::span{b});
}

void expect_same(const bytes& frame) {
  const auto length = static_cast<std::uint32_t>(frame.size());
  const common c4 = length >= common4_length ? parse_common4(view(frame).data(), length) : 0;
  const common c6 = length >= common6_length ? parse_common6(view(frame).data(), length) : 0;
  if (c4 == 0 && c6 == 0) return;
  const parsed quick = c4 != 0 ? spelled_out(c4, 4) : spelled_out(c6, 6);
  const parsed slow = parse_any(view(frame).data(), length, length);
  ASSERT_EQ(slow.kind, parse_kind::flow) << test::hex(frame);
  ASSERT_EQ(quick.kind, slow.kind);
  ASSERT_EQ(quick.version, slow.version);
  ASSERT_EQ(quick.protocol, slow.protocol);
  ASSERT_EQ(quick.tcp_flags, slow.tcp_flags);
  ASSERT_EQ(quick.l3, slow.l3);
  ASSERT_EQ(quick.l4, slow.l4);
  ASSERT_EQ(quick.ip_length, slow.ip_length);
}

bytes with_checksum(bytes frame) {
  frame[24] = frame[25] = 0;
  const std::size_t header = (frame[14] & 0xfu) * 4;
  if (header < 20 || frame.size() < 14 + header) return frame;
  const unsigned sum = test::checksum_of(frame, 14, header);
  frame[24] = static_cast<std::uint8_t>(sum >> 8);
  frame[25] = static_cast<std::uint8_t>(sum);
  return frame;
}

TEST(parse, the_shortcut_takes_the_common_frame) {
  const bytes tcp = test::padded(test::ethernet(0x0800, test::ip4({}, test::tcp({}))), 60);
  EXPECT_TRUE(parse_common4(view(tcp).data(), 60) != 0);
  const bytes udp =
      test::padded(test::ethernet(0x0800, test::ip4({.protocol = 17}, test::udp({}))), 60);
  EXPECT_TRUE(parse_common4(view(udp).data(), 60) != 0);
}

bytes frame6(bool tcp, const bytes& payload = {}) {
  return test::padded(
      test::ethernet(0x86dd, test::ip6({.next = tcp ? 6u : 17u},
                                       tcp ? test::tcp({}, payload) : test::udp({}, payload))),
      80);
}

TEST(parse, the_shortcut_takes_the_common_frame_of_ipv6) {
  for (const bool tcp : {true, false})
    for (const bytes& payload : {bytes{}, bytes(30, 1)}) {
      const bytes frame = frame6(tcp, payload);
      EXPECT_NE(parse_common6(view(frame).data(), static_cast<std::uint32_t>(frame.size())), 0u);
      expect_same(frame);
    }
}

TEST(parse, shortcut_and_long_way_agree_on_changed_ipv6) {
  std::mt19937 random{5};
  for (const bool tcp : {true, false})
    for (const bytes& payload : {bytes{}, bytes(30, 1)}) {
      const bytes frame = frame6(tcp, payload);
      for (std::size_t at = 0; at < 74; ++at)
        for (unsigned value = 0; value < 256; ++value) {
          bytes changed = frame;
          changed[at] = static_cast<std::uint8_t>(value);
          expect_same(changed);
          changed[random() % 74] = static_cast<std::uint8_t>(random());
          expect_same(changed);
        }
      // Addresses of which all but a few bytes are zero: unspecified, loopback, mapped.
      for (const std::size_t address : {22u, 38u})
        for (unsigned mask = 0; mask < 1u << 10; ++mask) {
          bytes changed = frame;
          for (std::size_t k = 0; k < 16; ++k)
            changed[address + k] = k < 6 ? 0 : (mask >> (k - 6) & 1) != 0 ? k < 12 ? 0xff : 1 : 0;
          expect_same(changed);
        }
    }
}

// Every single bit of the headers changed, with the checksum put right and without.
TEST(parse, shortcut_and_long_way_agree_on_changed_bits) {
  for (const bytes& frame :
       {test::padded(test::ethernet(0x0800, test::ip4({}, test::tcp({}))), 60),
        test::padded(test::ethernet(0x0800, test::ip4({}, test::tcp({}, bytes(30, 1)))), 90),
        test::padded(test::ethernet(0x0800, test::ip4({.protocol = 17}, test::udp({}))), 60)})
    for (std::size_t bit = 0; bit < 54 * 8; ++bit) {
      bytes changed = frame;
      changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ 1u << (bit % 8));
      expect_same(changed);
      expect_same(with_checksum(changed));
    }
}

// Every value of every header byte, alone and with random company.
TEST(parse, shortcut_and_long_way_agree_on_changed_bytes) {
  std::mt19937 random{3};
  for (std::size_t at = 12; at < 54; ++at)
    for (unsigned value = 0; value < 256; ++value)
      for (int round = 0; round < 4; ++round) {
        bytes frame = test::padded(
            test::ethernet(0x0800, test::ip4({.protocol = round % 2 == 0 ? 6u : 17u},
                                             round % 2 == 0 ? test::tcp({}) : test::udp({}))),
            60);
        frame[at] = static_cast<std::uint8_t>(value);
        if (round >= 2) frame[12 + random() % 42] = static_cast<std::uint8_t>(random());
        expect_same(with_checksum(frame));
      }
}

TEST(parse, at_needs_the_whole_header) {
  const bytes b(20, 0);
  EXPECT_NE(at<ipv4_header>(view(b), 0), nullptr);
  EXPECT_EQ(at<ipv4_header>(view(b), 1), nullptr);
  EXPECT_EQ(at<ipv4_header>(view(b), 21), nullptr);
  EXPECT_EQ(at<ipv4_header>(view(b), SIZE_MAX), nullptr);
  EXPECT_EQ(at<ipv6_header>(view(b), 0), nullptr);
  EXPECT_EQ(at<ethernet_header>({}, 0), nullptr);
}

}  // namespace
}  // namespace sluice::wire
