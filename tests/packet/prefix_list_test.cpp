// SPDX-License-Identifier: Apache-2.0
// prefix_list::holds() against the plainest model there is: a look at every range.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "tests/packet/list_builder.hpp"

namespace sluice::test {
namespace {

struct list_world {
  explicit list_world(std::vector<ipv4_range> v4, std::vector<ipv6_range> v6 = {})
      : four{merged(std::move(v4))}, six{std::move(v6)}, memory(first + 400'000 + four.size() * 8) {
    std::uint64_t at = first;
    list = write_list(memory.data(), at, four, six);
    last = at;
  }
  [[nodiscard]] bool holds(std::uint32_t a) const {
    return list.holds(memory.data(), first, last, ip_address::v4(be32{a}));
  }
  [[nodiscard]] bool model(std::uint32_t a) const {
    return std::any_of(four.begin(), four.end(),
                       [a](const ipv4_range& r) { return r.first <= a && a <= r.second; });
  }
  static constexpr std::uint64_t first = 64;
  std::vector<ipv4_range> four;
  std::vector<ipv6_range> six;
  std::vector<std::byte> memory;
  std::uint64_t last;
  abi::prefix_list list;
};

TEST(prefix_list, agrees_with_the_model) {
  std::mt19937 random{7};
  for (int round = 0; round < 60; ++round) {
    std::vector<ipv4_range> ranges;
    // From a handful anywhere to thousands close together; prefixes of 0 to 32 bits.
    const unsigned count = 1u << (round % 12);
    const std::uint32_t spread = round % 3 == 0 ? 0xffffffff : round % 3 == 1 ? 0x3ffff : 0xffffff;
    for (unsigned i = 0; i < count; ++i) {
      const std::uint64_t bits = round % 7 == 0 ? random() % 33 : 14 + random() % 19;
      const std::uint32_t mask = bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits);
      const std::uint32_t base =
          (0x0a000000 + (static_cast<std::uint32_t>(random()) & spread)) & mask;
      ranges.push_back({base, base | ~mask});
    }
    const list_world w{ranges};
    const auto check = [&](std::uint32_t a) {
      ASSERT_EQ(w.holds(a), w.model(a)) << "round " << round << ", address " << a;
    };
    for (int i = 0; i < 2000; ++i)
      check(i % 2 == 0 ? static_cast<std::uint32_t>(random())
                       : 0x0a000000 + (static_cast<std::uint32_t>(random()) & spread));
    for (std::size_t i = 0; i < w.four.size() && i < 500; ++i)
      for (const std::uint32_t a : {w.four[i].first, w.four[i].second})
        for (const std::uint32_t d : {0u, 1u, ~0u}) check(a + d);
    check(0);
    check(~0u);
  }
}

TEST(prefix_list, ends_of_the_space) {
  const list_world whole{{{0, ~0u}}};
  const list_world ends{{{0, 0}, {~0u, ~0u}}};
  const list_world none{{}};
  for (const std::uint32_t a : {0u, 1u, 0xffffu, 0x10000u, 0x7fffffffu, ~0u - 1, ~0u}) {
    EXPECT_TRUE(whole.holds(a));
    EXPECT_EQ(ends.holds(a), a == 0 || a == ~0u);
    EXPECT_FALSE(none.holds(a));
  }
}

TEST(prefix_list, ipv6) {
  const auto at = [](std::uint8_t a, std::uint8_t b) {
    return ip_address::v6({0x20, 1, 0xd, 0xb8, a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b});
  };
  const list_world w{{}, {{at(1, 0), at(1, 9)}, {at(2, 5), at(4, 0)}, {at(7, 7), at(7, 7)}}};
  const auto holds = [&](const ip_address& a) {
    return w.list.holds(w.memory.data(), w.first, w.last, a);
  };
  for (unsigned a = 0; a < 9; ++a)
    for (unsigned b = 0; b < 12; ++b) {
      const auto address = at(static_cast<std::uint8_t>(a), static_cast<std::uint8_t>(b));
      const bool inside = std::any_of(w.six.begin(), w.six.end(), [&](const ipv6_range& r) {
        return r.first <= address && address <= r.second;
      });
      EXPECT_EQ(holds(address), inside) << a << ' ' << b;
    }
  EXPECT_FALSE(holds(ip_address::v4({10, 0, 0, 1})));
}

// A row that points anywhere: false, and nothing outside the arena is read.
TEST(prefix_list, impossible_rows) {
  const list_world w{{{0, ~0u}}, {{ip_address{}, ip_address::v6({0xff})}}};
  const auto both = [&](abi::prefix_list l) {
    return l.holds(w.memory.data(), w.first, w.last, ip_address::v4({10, 0, 0, 1})) ||
           l.holds(w.memory.data(), w.first, w.last, ip_address::v6({0x20, 1}));
  };
  ASSERT_TRUE(both(w.list));
  for (const std::uint64_t wrong :
       {std::uint64_t{0}, w.first - 4, w.last, w.last - 4, ~std::uint64_t{0}, ~std::uint64_t{3},
        w.first + 1, std::uint64_t{1} << 63}) {
    abi::prefix_list l = w.list;
    l.index4 = l.ranges6 = wrong;
    EXPECT_FALSE(both(l)) << wrong;
    l = w.list;
    l.ranges4 = wrong;
    l.count6 = ~0u;
    EXPECT_FALSE(both(l)) << wrong;
  }
  abi::prefix_list l = w.list;
  l.count4 = l.count6 = ~0u;
  EXPECT_FALSE(both(l));
  // An index that no list of ours has leads nowhere, but not out of the list.
  std::vector<std::byte> copy = w.memory;
  for (std::size_t i = 0; i < 65537; ++i) {
    const std::uint32_t n = static_cast<std::uint32_t>(i * 2654435761u);
    std::memcpy(copy.data() + w.list.index4 + 4 * i, &n, 4);
  }
  for (std::uint32_t a = 0; a < 0xf0000000; a += 0x12345)
    (void)w.list.holds(copy.data(), w.first, w.last, ip_address::v4(be32{a}));
}

}  // namespace
}  // namespace sluice::test
