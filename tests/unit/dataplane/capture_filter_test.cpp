// SPDX-License-Identifier: Apache-2.0
// Which packets a capture wants.
#include <gtest/gtest.h>

#include "dataplane/worker/capture.hpp"
#include "tests/packet/frame_builder.hpp"

namespace sluice::test {
namespace {

// wants() asks a filter about a frame whose last byte is the last of its heap block.
bool wants(const capture_filter& filter, const bytes& frame) {
  const std::vector<std::byte> block(
      reinterpret_cast<const std::byte*>(frame.data()),
      reinterpret_cast<const std::byte*>(frame.data()) + frame.size());
  packet p{};
  p.data = const_cast<std::byte*>(block.data());
  p.length = p.total_length = static_cast<std::uint32_t>(block.size());
  return filter.fits(p);
}

ip_prefix prefix(const char* text) {
  return *parse_prefix(text);
}

// 203.0.113.7:2053 to 198.51.100.10:443, TCP.
const bytes tcp4 = ethernet(0x0800, ip4({}, tcp({2053, 443, 0x10})));
const bytes udp6 = ethernet(0x86dd, ip6({.next = 17}, udp({2053, 53})));
const bytes arp = ethernet(0x0806, bytes(28, 1));

TEST(capture_filter, without_anything_given_wants_everything) {
  for (const bytes& frame : {tcp4, udp6, arp, bytes(3, 0)}) EXPECT_TRUE(wants({}, frame));
}

TEST(capture_filter, each_part_must_fit) {
  const auto with = [](auto&& set) {
    capture_filter f;
    set(f);
    return f;
  };
  using filter = capture_filter;
  EXPECT_TRUE(wants(with([](filter& f) { f.protocol = 6; }), tcp4));
  EXPECT_FALSE(wants(with([](filter& f) { f.protocol = 17; }), tcp4));
  EXPECT_TRUE(wants(with([](filter& f) { f.protocol = 17; }), udp6));
  EXPECT_TRUE(wants(with([](filter& f) { f.source_port = 2053; }), tcp4));
  EXPECT_FALSE(wants(with([](filter& f) { f.source_port = 443; }), tcp4));
  EXPECT_TRUE(wants(with([](filter& f) { f.destination_port = 53; }), udp6));
  EXPECT_FALSE(wants(with([](filter& f) { f.destination_port = 2053; }), udp6));
  for (const char* text : {"203.0.113.7", "203.0.113.6/31", "203.0.113.0/24", "203.0.0.0/15",
                           "192.0.0.0/4", "0.0.0.0/0"}) {
    EXPECT_TRUE(wants(with([&](filter& f) { f.source = prefix(text); }), tcp4)) << text;
    EXPECT_FALSE(wants(with([&](filter& f) { f.source = prefix(text); }), udp6)) << text;
  }
  for (const char* text :
       {"203.0.113.6", "203.0.113.8/29", "203.0.112.0/24", "0.0.0.0/1", "::/0", "2001:db8::/32"})
    EXPECT_FALSE(wants(with([&](filter& f) { f.source = prefix(text); }), tcp4)) << text;
  EXPECT_TRUE(wants(with([](filter& f) { f.destination = prefix("198.51.100.8/29"); }), tcp4));
  EXPECT_FALSE(wants(with([](filter& f) { f.destination = prefix("203.0.113.7"); }), tcp4));
  EXPECT_TRUE(wants(with([](filter& f) { f.destination = prefix("2001:db8::/29"); }), udp6));
  // All together, and one wrong.
  filter all = with([](filter& f) {
    f.protocol = 6;
    f.source = prefix("203.0.113.0/24");
    f.destination = prefix("198.51.100.10");
    f.source_port = 2053;
    f.destination_port = 443;
  });
  EXPECT_TRUE(wants(all, tcp4));
  all.destination_port = 444;
  EXPECT_FALSE(wants(all, tcp4));
}

TEST(capture_filter, reads_nothing_that_is_not_there) {
  capture_filter f;
  f.destination_port = 443;
  EXPECT_FALSE(wants(f, arp));
  // Cut anywhere, in a block that ends there: a sanitizer would see more.
  for (std::size_t n = 0; n < tcp4.size() - 1; ++n)
    wants(f, bytes(tcp4.begin(), tcp4.begin() + static_cast<std::ptrdiff_t>(n)));
  // A later fragment has addresses, but no ports.
  const bytes later = ethernet(0x0800, ip4({.fragment = 8}, bytes(32, 0)));
  EXPECT_FALSE(wants(f, later));
  capture_filter address;
  address.source = prefix("203.0.113.7");
  EXPECT_TRUE(wants(address, later));
}

}  // namespace
}  // namespace sluice::test
