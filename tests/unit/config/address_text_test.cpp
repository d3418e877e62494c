// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/address_text.hpp"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(address_text, ip_round_trips_in_canonical_form) {
  const std::pair<const char*, const char*> rows[] = {
      {"192.0.2.1", "192.0.2.1"},
      {"0.0.0.0", "0.0.0.0"},
      {"255.255.255.255", "255.255.255.255"},
      {"2001:DB8:0:0:0:0:0:1", "2001:db8::1"},
      {"::", "::"},
      {"::1", "::1"},
      {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},     // RFC 5952 4.2.3: the first run
      {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},  // 4.2.2: one zero is not shortened
      {"::ffff:192.0.2.1", "192.0.2.1"},
  };
  for (const auto& [in, out] : rows) {
    const auto a = parse_ip(in);
    ASSERT_TRUE(a) << in;
    EXPECT_EQ(format_ip(*a), out);
    EXPECT_EQ(parse_ip(format_ip(*a)), *a);
  }
}

TEST(address_text, bad_ip_is_refused_by_name) {
  for (const char* bad : {"", "10.0.0", "10.0.0.256", "10.0.0.1 ", " 10.0.0.1", "010.0.0.1", "1",
                          "fe80::1%eth0", ":::", "2001:db8::1::", "12345::", "web",
                          "2001:db8::1/64", "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000"}) {
    const auto a = parse_ip(bad);
    ASSERT_FALSE(a) << bad;
    EXPECT_EQ(a.error(), "'" + std::string{bad} + "' is not an IP address");
  }
  EXPECT_FALSE(parse_ip(std::string_view{"10.0.0.1\0x", 10}));
  EXPECT_EQ(parse_ip("\n\xff").error(), "'?\?' is not an IP address");
}

TEST(address_text, ip_port) {
  for (const char* good : {"1.2.3.4:80", "[2001:db8::1]:65535", "0.0.0.0:1"}) {
    const auto e = parse_ip_port(good);
    ASSERT_TRUE(e) << good;
    EXPECT_EQ(format_ip_port(*e), good);
  }
  for (const char* bad : {"", ":80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536",
                          "1.2.3.4:080", "1.2.3.4:8x", "1.2.3.4:-1", "2001:db8::1:80",
                          "[1.2.3.4]:80", "[2001:db8::1]", "[]:80", "[2001:db8::1:80"})
    EXPECT_FALSE(parse_ip_port(bad)) << bad;
}

TEST(address_text, prefix) {
  for (const char* good : {"10.0.0.0/8", "192.0.2.128/25", "0.0.0.0/0", "2001:db8::/32", "::/0",
                           "192.0.2.1", "2001:db8::1"}) {
    const auto p = parse_prefix(good);
    ASSERT_TRUE(p) << good;
    EXPECT_EQ(format_prefix(*p), good);
  }
  EXPECT_TRUE(parse_prefix("192.0.2.1/32")->single());
  EXPECT_FALSE(parse_prefix("192.0.2.0/31")->single());
  EXPECT_EQ(parse_prefix("192.0.2.77/26").error(),
            "'192.0.2.77/26' has bits set beyond the prefix; the prefix is 192.0.2.64/26");
  for (const char* bad : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/-1",
                          "2001:db8::/129", "::ffff:10.0.0.0/120", "/8", "10.0.0.0/8/8"})
    EXPECT_FALSE(parse_prefix(bad)) << bad;
}

TEST(address_text, mac) {
  EXPECT_EQ(format_mac(*parse_mac("02:00:5E:00:53:aF")), "02:00:5e:00:53:af");
  EXPECT_EQ(format_mac(*parse_mac("02-00-5e-00-53-01")), "02:00:5e:00:53:01");
  for (const char* bad :
       {"", "02:00:00:00:00", "02:00:00:00:00:1", "02:00:00:00:00:0g", "02:00-00:00:00:01",
        "0200.5e00.5301", "02:00:00:00:00:01:", "+2:00:00:00:00:01", "2 :00:00:00:00:01"})
    EXPECT_FALSE(parse_mac(bad)) << bad;
}

}  // namespace
}  // namespace sluice
