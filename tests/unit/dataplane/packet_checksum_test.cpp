// SPDX-License-Identifier: Apache-2.0
#include "dataplane/packet/checksum.hpp"

#include <gtest/gtest.h>

#include <random>

#include "dataplane/packet/encapsulate.hpp"

namespace sluice::wire {
namespace {

// As RFC 1071 describes it, one word after the other.
std::uint16_t plain_sum(std::span<const std::byte> b) {
  std::uint32_t s = 0;
  for (std::size_t i = 0; i < b.size(); i += 2) {
    const auto high = static_cast<unsigned>(b[i]);
    const auto low = i + 1 < b.size() ? static_cast<unsigned>(b[i + 1]) : 0u;
    s += high << 8 | low;
    s = (s & 0xffff) + (s >> 16);
  }
  return static_cast<std::uint16_t>(s);
}

ipv4_header header(std::uint16_t id, std::uint8_t ttl, std::uint32_t source) {
  ipv4_header h{};
  h.version_ihl = 0x45;
  h.total_length = be16{40};
  h.id = be16{id};
  h.ttl = ttl;
  h.protocol = 6;
  h.source = be32{source};
  h.destination = be32{0xc633640a};
  h.checksum = checksum(sum(std::as_bytes(std::span{&h, 1})));
  return h;
}

TEST(checksum, the_example_of_rfc_1071) {
  // Section 3: 00 01 f2 03 f4 f5 f6 f7 add up to ddf2.
  const std::array<unsigned char, 8> example{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(be16::from_raw(fold(sum(std::as_bytes(std::span{example})))).host(), 0xddf2);
}

TEST(checksum, any_length_any_bytes) {
  std::mt19937 random{1};
  for (std::size_t n = 0; n <= 130; ++n)
    for (int round = 0; round < 50; ++round) {
      std::vector<std::byte> b(n);
      for (std::byte& x : b) x = static_cast<std::byte>(round == 0 ? 0xff : random() & 0xff);
      EXPECT_EQ(be16::from_raw(fold(sum(b))).host(), plain_sum(b)) << n;
    }
}

TEST(checksum, fold_and_add_keep_every_carry) {
  EXPECT_EQ(fold(0), 0);
  EXPECT_EQ(fold(~std::uint64_t{0}), 0xffff);
  EXPECT_EQ(fold(0x10000), 1);
  EXPECT_EQ(fold(0xffff'0001), 1);
  EXPECT_EQ(fold(0xffff'ffff'0000'0001), 1);
  EXPECT_EQ(add(~std::uint64_t{0}, 1), 1u);
  EXPECT_EQ(add(~std::uint64_t{0}, ~std::uint64_t{0}), ~std::uint64_t{0});
}

// RFC 1624 section 4 has this case: eqn. 4 of RFC 1141 gives 0xffff, right is 0.
TEST(checksum, update_as_in_rfc_1624) {
  EXPECT_EQ(updated(be16{0xdd2f}, be16{0x5555}, be16{0x3285}).host(), 0x0000);
}

// Every checksum that a header can have, before and after the TTL goes down.
TEST(checksum, decrement_ttl_is_right_for_every_header) {
  std::vector<bool> seen(0x10000);
  for (unsigned id = 0; id < 0x10000; ++id)
    for (const std::uint8_t ttl : {std::uint8_t{2}, std::uint8_t{64}, std::uint8_t{255}}) {
      ipv4_header h = header(static_cast<std::uint16_t>(id), ttl, 0xcb007107);
      seen[h.checksum.host()] = true;
      const be16 by_word = updated(h.checksum, be16{static_cast<std::uint16_t>(ttl << 8 | 6)},
                                   be16{static_cast<std::uint16_t>((ttl - 1) << 8 | 6)});
      decrement_ttl(h);
      const ipv4_header fresh =
          header(static_cast<std::uint16_t>(id), static_cast<std::uint8_t>(ttl - 1), 0xcb007107);
      ASSERT_EQ(h.checksum, fresh.checksum) << id;
      ASSERT_EQ(h.checksum, by_word) << id;
      ASSERT_EQ(h.ttl, ttl - 1);
    }
  EXPECT_GE(std::count(seen.begin(), seen.end(), true), 0xfff0);
}

TEST(encapsulate, outer4_is_right_for_every_length_and_tos) {
  std::array<std::byte, 20> out;
  for (unsigned length = 0; length <= 65515; length += 13)
    for (const unsigned tos : {0u, 0xb8u, 0xffu}) {
      make_outer4(out.data(), length, ip_proto::ipv6, static_cast<std::uint8_t>(tos),
                  be32{0xc0000201}, be32{0x0a000101});
      ASSERT_EQ(plain_sum(out), 0xffff);
      const auto& h = *reinterpret_cast<const ipv4_header*>(out.data());
      ASSERT_EQ(h.total_length.host(), length + 20);
      ASSERT_EQ(h.tos, tos);
    }
}

TEST(encapsulate, outer_source6_varies_only_host_bits) {
  abi::encap_source s{
      ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 120, 1, {}};
  std::vector<bool> seen(256);
  std::mt19937_64 random{7};
  for (int i = 0; i < 20'000; ++i) {
    const ip_address a = outer_source6(s, random());
    ASSERT_TRUE(std::equal(a.bytes.begin(), a.bytes.begin() + 15, s.base.bytes.begin()));
    seen[a.bytes[15]] = true;
  }
  EXPECT_FALSE(seen[0]);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 255);
  s.prefix = 128;
  EXPECT_EQ(outer_source6(s, random()), s.base);
  s.prefix = 64;  // 32 bits vary
  EXPECT_TRUE(std::equal(s.base.bytes.begin(), s.base.bytes.begin() + 12,
                         outer_source6(s, random()).bytes.begin()));
}

TEST(encapsulate, outer_source4_of_every_prefix) {
  std::mt19937_64 random{7};
  for (std::uint8_t prefix = 0; prefix <= 32; ++prefix) {
    const std::uint32_t mask = prefix == 0 ? 0 : ~std::uint32_t{0} << (32 - prefix);
    const std::uint32_t base = 0xc00002ff & mask;
    const abi::encap_source s{ip_address::v4(be32{base}), prefix, 1, {}};
    for (int i = 0; i < 2000; ++i) {
      const std::uint32_t a = outer_source4(s, random()).host();
      ASSERT_EQ(a & mask, base);
      if (prefix < 31) {
        ASSERT_NE(a & ~mask, 0u);
        ASSERT_NE(a & ~mask, ~mask);
      }
    }
  }
}

TEST(encapsulate, flow_label_is_never_zero) {
  EXPECT_EQ(flow_label(0), 1u);
  EXPECT_EQ(flow_label(0x12300000), 1u);
  EXPECT_EQ(flow_label(~std::uint64_t{0}), 0xfffffu);
}

}  // namespace
}  // namespace sluice::wire
