// SPDX-License-Identifier: Apache-2.0
// Allow and deny lists: files of prefixes, ranges, and what the workers find in them.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <random>

#include "controlplane/lists/prefix_file.hpp"
#include "controlplane/lists/range_set.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::lists {
namespace {

// placed: a list in memory as a segment has it.
class placed {
 public:
  explicit placed(const range_set& set) : memory_((set.bytes() + 4096 + 63) / 64) {
    const auto row = set.write(data() + base, base);
    row_ = row;
    end_ = base + set.bytes();
  }
  [[nodiscard]] bool holds(const ip_address& a) const { return row_.holds(data(), base, end_, a); }
  [[nodiscard]] const abi::prefix_list& row() const { return row_; }

 private:
  static constexpr std::uint64_t base = 4096;
  struct alignas(64) line {
    std::array<std::byte, 64> bytes;
  };
  [[nodiscard]] std::byte* data() { return memory_.data()->bytes.data(); }
  [[nodiscard]] const std::byte* data() const { return memory_.data()->bytes.data(); }
  std::vector<line> memory_;
  abi::prefix_list row_{};
  std::uint64_t end_{};
};

bool inside(const ip_prefix& p, const ip_address& a) {
  if (p.address.is_v4() != a.is_v4()) return false;
  const unsigned bits = p.length + (a.is_v4() ? 96u : 0u);
  for (unsigned i = 0; i < bits; ++i)
    if (((p.address.bytes[i / 8] ^ a.bytes[i / 8]) >> (7 - i % 8) & 1) != 0) return false;
  return true;
}

ip_prefix random_prefix(std::mt19937_64& rng, bool narrow) {
  ip_prefix p;
  if (rng() % 2 == 0) {
    p.length = static_cast<std::uint8_t>(rng() % 33);
    if (narrow) p.length = static_cast<std::uint8_t>(20 + rng() % 13);
    p.address =
        ip_address::v4({10, static_cast<std::uint8_t>(rng() % 3), static_cast<std::uint8_t>(rng()),
                        static_cast<std::uint8_t>(rng())});
  } else {
    p.length = static_cast<std::uint8_t>(narrow ? 100 + rng() % 29 : rng() % 129);
    for (auto& b : p.address.bytes) b = static_cast<std::uint8_t>(rng() % 3);
    p.address.bytes[0] = 0x20;
    p.address.bytes[15] = static_cast<std::uint8_t>(rng());
  }
  const unsigned first = p.length + (p.address.is_v4() ? 96u : 0u);
  for (unsigned i = first; i < 128; ++i)
    p.address.bytes[i / 8] = static_cast<std::uint8_t>(p.address.bytes[i / 8] & ~(0x80u >> i % 8));
  return p;
}

// neighbour() is the address before or after; wraps.
ip_address neighbour(ip_address a, bool up) {
  const std::size_t low = a.is_v4() ? 12 : 0;
  for (std::size_t i = 16; i-- > low;) {
    a.bytes[i] = static_cast<std::uint8_t>(up ? a.bytes[i] + 1 : a.bytes[i] - 1);
    if (a.bytes[i] != (up ? 0 : 0xff)) break;
  }
  return a;
}

TEST(lists, random_lists_hold_what_their_prefixes_hold) {
  std::mt19937_64 rng{11};
  for (int round = 0; round < 400; ++round) {
    std::vector<ip_prefix> prefixes(rng() % 40);
    for (auto& p : prefixes) p = random_prefix(rng, rng() % 8 != 0);
    const range_set set{prefixes};
    ASSERT_TRUE(set.valid());
    const placed list{set};
    const auto check = [&](const ip_address& a) {
      const bool expected = std::any_of(prefixes.begin(), prefixes.end(),
                                        [&](const auto& p) { return inside(p, a); });
      ASSERT_EQ(list.holds(a), expected) << format_ip(a) << ", round " << round;
    };
    for (const auto& p : prefixes) {
      ip_address last = p.address;
      const unsigned first = p.length + (p.address.is_v4() ? 96u : 0u);
      for (unsigned i = first; i < 128; ++i)
        last.bytes[i / 8] = static_cast<std::uint8_t>(last.bytes[i / 8] | 0x80u >> i % 8);
      check(p.address);
      check(last);
      if (p.length != 0) {
        check(neighbour(p.address, false));
        check(neighbour(last, true));
      }
    }
    for (int i = 0; i < 50; ++i) check(random_prefix(rng, true).address);
    check(test::v4(0, 0, 0, 0));
    check(test::v4(255, 255, 255, 255));
  }
}

TEST(lists, order_and_repetition_do_not_matter) {
  std::mt19937_64 rng{5};
  std::vector<ip_prefix> prefixes(200);
  for (auto& p : prefixes) p = random_prefix(rng, true);
  const range_set one{prefixes};
  std::shuffle(prefixes.begin(), prefixes.end(), rng);
  prefixes.insert(prefixes.end(), prefixes.begin(), prefixes.begin() + 50);
  const range_set other{prefixes};
  EXPECT_EQ(one, other);
  EXPECT_EQ(one.digest(), other.digest());
  prefixes.clear();
  EXPECT_NE(range_set{prefixes}, one);
  // Halves make a whole.
  EXPECT_EQ(range_set(std::vector{*parse_prefix("10.0.0.0/9"), *parse_prefix("10.128.0.0/9")}),
            range_set(std::vector{*parse_prefix("10.0.0.0/8")}));
}

TEST(lists, whole_families_and_nobody) {
  const placed all4{range_set{std::vector{*parse_prefix("0.0.0.0/0")}}};
  EXPECT_TRUE(all4.holds(test::v4(0, 0, 0, 0)));
  EXPECT_TRUE(all4.holds(test::v4(255, 255, 255, 255)));
  EXPECT_FALSE(all4.holds(*parse_ip("2001:db8::1")));
  const placed all6{range_set{std::vector{*parse_prefix("::/0")}}};
  EXPECT_TRUE(all6.holds(*parse_ip("2001:db8::1")));
  EXPECT_FALSE(all6.holds(test::v4(10, 0, 0, 1)));
  const placed none{range_set{}};
  EXPECT_FALSE(none.holds(test::v4(10, 0, 0, 1)));
  EXPECT_FALSE(none.holds(*parse_ip("::1")));
}

TEST(lists, a_file) {
  const auto read = parse_prefixes(
      "# bad people\n\n  192.0.2.0/24  \n2001:db8::/32 # and these\r\n10.1.2.3", "f");
  ASSERT_TRUE(read) << to_string(read.error());
  EXPECT_EQ(*read, (std::vector{*parse_prefix("192.0.2.0/24"), *parse_prefix("2001:db8::/32"),
                                *parse_prefix("10.1.2.3")}));
  EXPECT_TRUE(parse_prefixes("", "f")->empty());
  const auto wrong = [](std::string_view text) {
    const auto r = parse_prefixes(text, "bad.txt");
    return r ? std::string{"fine"} : to_string(r.error());
  };
  const std::string right =
      "; expected one prefix in a line, such as 192.0.2.0/24 or 2001:db8::/32";
  EXPECT_EQ(
      wrong("10.0.0.0/8\n10.0.0.1/8\n"),
      "bad.txt:2: '10.0.0.1/8' has bits set beyond the prefix; the prefix is 10.0.0.0/8" + right);
  EXPECT_EQ(wrong("\n\n10.0.0.300"),
            "bad.txt:3: '10.0.0.300' is not an IP address or prefix, such as 192.0.2.0/24" + right);
  EXPECT_EQ(wrong("10.0.0.0/33"),
            "bad.txt:1: '10.0.0.0/33': the prefix length is not a number from 0 to 32" + right);
  EXPECT_NE(wrong("10.0.0.0/8 10.1.0.0/16"), "fine");
  EXPECT_NE(wrong("010.0.0.1"), "fine");
  EXPECT_NE(wrong("10.0.0.1/"), "fine");
  EXPECT_NE(wrong(std::string_view{"10.0.0.1\0", 9}), "fine");
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "x\n";
  EXPECT_LE(parse_prefixes(many, "f").error().size(), yaml::max_errors + 1);
}

TEST(lists, quick_reading_agrees_with_the_parser) {
  std::mt19937_64 rng{9};
  constexpr std::string_view characters = "0123456789./12";
  for (int i = 0; i < 200'000; ++i) {
    const auto number = [&] { return std::to_string(rng() % (rng() % 9 == 0 ? 400 : 256)); };
    std::string text = number() + "." + number() + "." + number() + "." + number();
    if (rng() % 2 == 0) text += "/" + std::to_string(rng() % 36);
    for (auto slips = rng() % 3; slips > 0; --slips)
      text[rng() % text.size()] = characters[rng() % characters.size()];
    const auto slow = parse_prefix(text);
    const auto quick = parse_prefixes(text, "f");
    ASSERT_EQ(slow.has_value(), quick.has_value()) << text;
    if (slow) {
      ASSERT_EQ(*slow, quick->front()) << text;
    }
  }
}

TEST(lists, a_million_prefixes) {
  std::mt19937_64 rng{4};
  std::string text;
  std::vector<ip_address> in;
  for (std::size_t i = 0; i < 1'000'000; ++i) {
    const ip_address a =
        ip_address::v4(be32{static_cast<std::uint32_t>(rng()) & 0x7ffffffeu});  // even
    if (i % 1000 == 0) in.push_back(a);
    text += format_ip(a) + "/32\n";
  }
  test::scratch_directory directory;
  const std::string path = directory.path() + "/million.txt";
  std::ofstream{path} << text;
  const auto begin = std::chrono::steady_clock::now();
  const auto set = load({.prefixes = {*parse_prefix("2001:db8::/32")}, .file = path});
  ASSERT_TRUE(set) << to_string(set.error());
  const placed list{**set};
  const auto took =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin);
  std::printf("a million prefixes: %zu ranges, %.1f MiB, %.0f ms\n", (*set)->size(),
              static_cast<double>((*set)->bytes()) / (1 << 20), took.count());
  for (const auto& a : in) {
    ASSERT_TRUE(list.holds(a));
    ip_address odd = a;
    odd.bytes[15] |= 1;
    ASSERT_FALSE(list.holds(odd));
  }
  EXPECT_TRUE(list.holds(*parse_ip("2001:db8::7")));
  text += text.substr(0, text.size() / 10);
  EXPECT_FALSE(parse_prefixes(text, "f"));  // 1.1 million
}

TEST(lists, files_that_cannot_be_read) {
  const auto error = [](const std::string& path) {
    const auto r = load({.prefixes = {}, .file = path});
    return r ? std::string{"fine"} : to_string(r.error());
  };
  EXPECT_EQ(error("/nonexistent/list"),
            "/nonexistent/list: cannot be opened: No such file or directory; expected a file of "
            "prefixes");
  EXPECT_EQ(error("/dev"), "/dev: is no regular file; expected a file of prefixes");
  const auto none = load({});
  ASSERT_TRUE(none);
  EXPECT_EQ(*none, nullptr);
}

}  // namespace
}  // namespace sluice::lists
