// SPDX-License-Identifier: Apache-2.0
// bpf/decap.bpf.c in the kernel, frame by frame: what comes out, and what is refused.
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <unistd.h>

#include "tests/unit/bpf/frame.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

const std::string balancer4 = "10.0.1.1", backend4 = "10.0.1.11";
const std::string balancer6 = "2001:db8:a::1", backend6 = "2001:db8:a::11";
const std::string client4 = "192.0.2.7", vip4 = "198.51.100.10";
const std::string client6 = "2001:db8:1::7", vip6 = "2001:db8::10";

bytes mapped(const std::string& text) {
  const bytes b = address(text);
  return b.size() == 16 ? b : fill(10) + bytes{0xff, 0xff} + b;
}

sluice_address key(const std::string& text) {
  sluice_address result{};
  const bytes b = mapped(text);
  std::copy(b.begin(), b.end(), result.bytes);
  return result;
}

bytes inner4(unsigned tos = 0) {
  return ipv4({client4, vip4, 6, {}, 0, tos}, tcp(1, 80));
}
bytes inner6(unsigned tc = 0) {
  return ipv6({client6, vip6, 6, tc}, tcp(1, 80));
}
bytes outer4(unsigned protocol, const bytes& payload) {
  return ipv4({balancer4, backend4, protocol}, payload);
}
bytes outer6(unsigned next, const bytes& payload) {
  return ipv6({balancer6, backend6, next}, payload);
}
const bytes v4 = ethernet(0x0800);
const bytes v6 = ethernet(0x86dd);

class decap : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "loading BPF programs needs root";
    program_ = std::make_unique<program>("decap", SLUICE_DECAP_PROGRAM);
    for (const auto& a : {backend4, backend6})
      program_->put(SLUICE_DECAP_LOCAL_MAP, key(a), std::uint32_t{1});
  }

  void demand(std::uint32_t flags) {
    program_->put(SLUICE_DECAP_CONFIG_MAP, std::uint32_t{0}, sluice_decap_config{flags, 0, 0});
  }
  void allow_source(const std::string& text, std::uint32_t length) {
    sluice_prefix prefix{};
    prefix.length = length;
    const bytes b = mapped(text);
    std::copy(b.begin(), b.end(), prefix.bytes);
    program_->put(SLUICE_DECAP_SOURCES_MAP, prefix, std::uint32_t{1});
  }

  void expect(const char* what, const bytes& in, sluice_decap_counter counter, const bytes& out) {
    SCOPED_TRACE(what);
    const auto before = program_->counters(SLUICE_DECAP_STATS_MAP, SLUICE_DECAP_COUNTERS);
    const run_result result = program_->run(in);
    const auto after = program_->counters(SLUICE_DECAP_STATS_MAP, SLUICE_DECAP_COUNTERS);
    EXPECT_EQ(counted(before, after), static_cast<int>(counter));
    EXPECT_EQ(result.verdict, out.empty() ? XDP_DROP : XDP_PASS);
    if (!out.empty()) {
      EXPECT_EQ(result.frame, out);
    }
  }
  void untouched(const char* what, const bytes& in, sluice_decap_counter c = SLUICE_DECAP_PASSED) {
    expect(what, in, c, in);
  }
  void dropped(const char* what, const bytes& in, sluice_decap_counter c) {
    expect(what, in, c, {});
  }

  std::unique_ptr<program> program_;
};

TEST_F(decap, all_combinations) {
  expect("4in4", v4 + outer4(4, inner4()), SLUICE_DECAP_4IN4, v4 + inner4());
  expect("6in4", v4 + outer4(41, inner6()), SLUICE_DECAP_6IN4, v6 + inner6());
  expect("4in6", v6 + outer6(4, inner4()), SLUICE_DECAP_4IN6, v4 + inner4());
  expect("6in6", v6 + outer6(41, inner6()), SLUICE_DECAP_6IN6, v6 + inner6());
}

bytes gue(const bytes& inner, unsigned port = 6080, unsigned checksum = 0) {
  return u16(51000) + u16(port) + u16(static_cast<unsigned>(8 + inner.size())) + u16(checksum) +
         inner;
}
bytes gre(unsigned type, const bytes& inner, unsigned flags = 0) {
  return u16(flags) + u16(type) + inner;
}

TEST_F(decap, gue) {
  untouched("no port is set", v4 + outer4(17, gue(inner4())));
  program_->put(SLUICE_DECAP_CONFIG_MAP, std::uint32_t{0}, sluice_decap_config{0, htons(6080), 0});
  expect("4in4", v4 + outer4(17, gue(inner4())), SLUICE_DECAP_4IN4, v4 + inner4());
  expect("6in4", v4 + outer4(17, gue(inner6())), SLUICE_DECAP_6IN4, v6 + inner6());
  expect("4in6", v6 + outer6(17, gue(inner4())), SLUICE_DECAP_4IN6, v4 + inner4());
  expect("6in6", v6 + outer6(17, gue(inner6())), SLUICE_DECAP_6IN6, v6 + inner6());
  expect("with a checksum", v4 + outer4(17, gue(inner4(), 6080, 0x1234)), SLUICE_DECAP_4IN4,
         v4 + inner4());
  expect("options, padding",
         v4 + ipv4({balancer4, backend4, 17, fill(8, 1)}, gue(inner4())) + fill(5),
         SLUICE_DECAP_4IN4, v4 + inner4() + fill(5));
  expect("VLAN tag", ethernet(0x8100) + vlan(7, 0x0800) + outer4(17, gue(inner6())),
         SLUICE_DECAP_6IN4, ethernet(0x8100) + vlan(7, 0x86dd) + inner6());
  expect("congestion mark", v4 + ipv4({balancer4, backend4, 17, {}, 0, 3}, gue(inner4(2))),
         SLUICE_DECAP_4IN4, v4 + inner4(3));
  untouched("another port", v4 + outer4(17, gue(inner4(), 6081)));
  untouched("another host", v4 + ipv4({balancer4, "10.0.1.12", 17}, gue(inner4())));
  untouched("variant 0", v4 + outer4(17, gue(fill(4) + inner4())));
  untouched("a fragment", v4 + ipv4({balancer4, backend4, 17, {}, 0x2000}, gue(inner4())));
  untouched("outer checksum: the kernel's",
            v4 + ipv4({balancer4, backend4, 17, {}, 0, 0, 0, 0, 1}, gue(inner4())));
  bytes longer = gue(inner4());
  longer[5] = static_cast<std::uint8_t>(longer[5] + 1);
  dropped("UDP longer than IP", v4 + outer4(17, longer), SLUICE_DECAP_MALFORMED);
  bytes shorter = gue(inner4());
  shorter[5] = 7;
  dropped("UDP shorter than its header", v4 + outer4(17, shorter), SLUICE_DECAP_MALFORMED);
  dropped("the inner packet is longer than UDP",
          v4 + outer4(17, gue(ipv4({client4, vip4, 6, {}, 0, 0, 0, 60}, tcp(1, 80)))),
          SLUICE_DECAP_MALFORMED);
  for (std::size_t n = 20; n < 30; ++n)
    untouched("cut within UDP: the kernel's", cut(v4 + outer4(17, gue(inner4())), 14 + n));
  program_->put(
      SLUICE_DECAP_CONFIG_MAP, std::uint32_t{0},
      sluice_decap_config{SLUICE_DECAP_CHECK_VIP | SLUICE_DECAP_CHECK_SOURCE, htons(6080), 0});
  dropped("source", v4 + outer4(17, gue(inner4())), SLUICE_DECAP_BAD_SOURCE);
  allow_source("10.0.1.0", 96 + 24);
  dropped("VIP", v4 + outer4(17, gue(inner4())), SLUICE_DECAP_BAD_VIP);
}

TEST_F(decap, gre) {
  expect("4in4", v4 + outer4(47, gre(0x0800, inner4())), SLUICE_DECAP_4IN4, v4 + inner4());
  expect("6in4", v4 + outer4(47, gre(0x86dd, inner6())), SLUICE_DECAP_6IN4, v6 + inner6());
  expect("4in6", v6 + outer6(47, gre(0x0800, inner4())), SLUICE_DECAP_4IN6, v4 + inner4());
  expect("6in6", v6 + outer6(47, gre(0x86dd, inner6())), SLUICE_DECAP_6IN6, v6 + inner6());
  untouched("with a key", v4 + outer4(47, gre(0x0800, fill(4) + inner4(), 0x2000)));
  untouched("with a checksum", v4 + outer4(47, gre(0x0800, fill(4) + inner4(), 0x8000)));
  untouched("Ethernet inside", v4 + outer4(47, gre(0x6558, fill(40))));
  dropped("type and version differ", v4 + outer4(47, gre(0x86dd, inner4() + fill(40))),
          SLUICE_DECAP_MALFORMED);
  untouched("a fragment", v4 + ipv4({balancer4, backend4, 47, {}, 0x2000}, gre(0x0800, inner4())),
            SLUICE_DECAP_FRAGMENT);
}

// The VIP comes back by DSCP; every checksum is right afterwards, because it was before.
TEST_F(decap, dscp) {
  program_->put(SLUICE_DECAP_DSCP_MAP, std::uint32_t{10}, key(vip4));
  program_->put(SLUICE_DECAP_DSCP_MAP, std::uint32_t{SLUICE_DECAP_DSCP_IPV6 + 63}, key(vip6));
  const auto summed = [](const std::string& from, const std::string& to, unsigned protocol,
                         bytes l4, std::size_t at) {
    l4[at] = l4[at + 1] = 0;
    const unsigned sum = internet_checksum(
        address(from) + address(to) + u16(static_cast<unsigned>(l4.size())) + u16(protocol) + l4);
    const bytes right = u16(protocol == 17 && sum == 0 ? 0xffff : sum);
    std::copy(right.begin(), right.end(), l4.begin() + static_cast<std::ptrdiff_t>(at));
    return l4;
  };
  const auto tcp4 = [&](const std::string& to, unsigned tos = 41) {
    return v4 + ipv4({client4, to, 6, {}, 0, tos}, summed(client4, to, 6, tcp(1, 80), 16));
  };
  expect("TCP", tcp4(backend4), SLUICE_DECAP_RESTORED, tcp4(vip4));
  for (unsigned port = 1; port < 300; ++port) {
    const auto udp4 = [&](const std::string& to) {
      return v4 + ipv4({client4, to, 17, fill(4, 1), 0, 40},
                       summed(client4, to, 17, udp(port * 211, 53), 6));
    };
    expect("UDP, options", udp4(backend4), SLUICE_DECAP_RESTORED, udp4(vip4));
  }
  expect("UDP without a checksum", v4 + ipv4({client4, backend4, 17, {}, 0, 40}, udp(1, 53)),
         SLUICE_DECAP_RESTORED, v4 + ipv4({client4, vip4, 17, {}, 0, 40}, udp(1, 53)));
  expect("a later fragment", v4 + ipv4({client4, backend4, 17, {}, 0x0010, 40}, fill(16, 9)),
         SLUICE_DECAP_RESTORED, v4 + ipv4({client4, vip4, 17, {}, 0x0010, 40}, fill(16, 9)));
  const auto tcp6 = [&](const std::string& to, const bytes& extensions, unsigned next) {
    return v6 +
           ipv6({client6, to, next, 0xfc}, extensions + summed(client6, to, 6, tcp(1, 80), 16));
  };
  expect("IPv6", tcp6(backend6, {}, 6), SLUICE_DECAP_RESTORED, tcp6(vip6, {}, 6));
  expect("IPv6, an extension header", tcp6(backend6, extension(6, 1), 60), SLUICE_DECAP_RESTORED,
         tcp6(vip6, extension(6, 1), 60));
  untouched("another DSCP", tcp4(backend4, 44));
  untouched("no DSCP", tcp4(backend4, 0));
  untouched("another host", tcp4("10.0.1.12"));
  untouched("the IPv4 DSCP in IPv6", v6 + ipv6({client6, backend6, 6, 40}, tcp(1, 80)));
  untouched("a ping", v4 + ipv4({client4, backend4, 1, {}, 0, 40}, fill(8, 8)));
  for (std::size_t n = 20; n < 40; ++n) untouched("cut short", cut(tcp4(backend4), 14 + n));
}

TEST_F(decap, vlan_tags_and_padding) {
  const bytes tag = ethernet(0x8100), qinq = ethernet(0x88a8) + vlan(5, 0x8100);
  expect("one tag", tag + vlan(7, 0x0800) + outer4(41, inner6()), SLUICE_DECAP_6IN4,
         tag + vlan(7, 0x86dd) + inner6());
  expect("two tags", qinq + vlan(7, 0x86dd) + outer6(4, inner4()), SLUICE_DECAP_4IN6,
         qinq + vlan(7, 0x0800) + inner4());
  expect("Ethernet padding stays", v4 + outer4(4, inner4()) + fill(9), SLUICE_DECAP_4IN4,
         v4 + inner4() + fill(9));
}

TEST_F(decap, outer_options_and_extensions) {
  for (std::size_t words = 1; words <= 10; ++words)
    expect("options", v4 + ipv4({balancer4, backend4, 4, fill(4 * words, 1)}, inner4()),
           SLUICE_DECAP_4IN4, v4 + inner4());
  expect("tunnel encapsulation limit", v6 + outer6(60, extension(41) + inner6()), SLUICE_DECAP_6IN6,
         v6 + inner6());
  expect("two long extensions", v6 + outer6(0, extension(60, 3) + extension(4, 200) + inner4()),
         SLUICE_DECAP_4IN6, v4 + inner4());
  expect("atomic fragment", v6 + outer6(44, fragment_header(4, 0) + inner4()), SLUICE_DECAP_4IN6,
         v4 + inner4());
  expect("inner options", v4 + outer4(4, ipv4({client4, vip4, 6, fill(12, 1)}, tcp(1, 80))),
         SLUICE_DECAP_4IN4, v4 + ipv4({client4, vip4, 6, fill(12, 1)}, tcp(1, 80)));
}

TEST_F(decap, not_a_tunnel_of_ours) {
  untouched("tcp to the backend", v4 + ipv4({client4, backend4, 6}, tcp(1, 22)));
  untouched("ipip to another host", v4 + ipv4({balancer4, "10.0.1.12", 4}, inner4()));
  untouched("6in6 to another host", v6 + ipv6({balancer6, "2001:db8:a::12", 41}, inner6()));
  untouched("broken, but not ours", v4 + ipv4({balancer4, "10.0.1.12", 4, {}, 0, 0, 0, 0, 1}, {}));
  untouched("plain IPv6", v6 + ipv6({client6, backend6, 6}, tcp(1, 22)));
  untouched("arp", ethernet(0x0806) + fill(28));
  untouched("gre of another kind", v4 + outer4(47, fill(30)));
  untouched("too short for gre", v4 + outer4(47, fill(3)));
}

TEST_F(decap, fragments_are_left_to_the_kernel) {
  untouched("first", v4 + ipv4({balancer4, backend4, 4, {}, 0x2000}, inner4()),
            SLUICE_DECAP_FRAGMENT);
  untouched("later", v4 + ipv4({balancer4, backend4, 4, {}, 0x0010}, fill(40)),
            SLUICE_DECAP_FRAGMENT);
  untouched("IPv6", v6 + outer6(44, fragment_header(41, 1) + inner6()), SLUICE_DECAP_FRAGMENT);
  expect("don't fragment", v4 + ipv4({balancer4, backend4, 4, {}, 0x4000}, inner4()),
         SLUICE_DECAP_4IN4, v4 + inner4());
}

TEST_F(decap, malformed) {
  const auto m = SLUICE_DECAP_MALFORMED;
  dropped("outer checksum", v4 + ipv4({balancer4, backend4, 4, {}, 0, 0, 0, 0, 1}, inner4()), m);
  dropped("outer options, checksum",
          v4 + ipv4({balancer4, backend4, 4, fill(8, 1), 0, 0, 0, 0, 5}, inner4()), m);
  dropped("outer longer than the frame",
          v4 + ipv4({balancer4, backend4, 4, {}, 0, 0, 0, 200}, inner4()), m);
  dropped("outer total under its header",
          v4 + ipv4({balancer4, backend4, 4, {}, 0, 0, 0, 19}, inner4()), m);
  dropped("inner longer than the outer",
          v4 + outer4(4, ipv4({client4, vip4, 6, {}, 0, 0, 0, 100}, tcp(1, 80))), m);
  dropped("inner longer than the outer, padding there",
          v4 + outer4(4, ipv4({client4, vip4, 6, {}, 0, 0, 0, 43}, tcp(1, 80))) + fill(9), m);
  dropped("inner IPv6 longer than the outer",
          v4 + outer4(41, ipv6({client6, vip6, 6, 0, 23}, tcp(1, 80))) + fill(9), m);
  dropped("inner version", v4 + outer4(41, inner4() + fill(20)), m);
  dropped("inner version, the other way", v4 + outer4(4, inner6()), m);
  dropped("inner header length",
          v4 + outer4(4, ipv4({client4, vip4, 6, {}, 0, 0, 0x44}, tcp(1, 80))), m);
  dropped("empty", v4 + outer4(4, {}), m);
  dropped("outer IPv6 longer than the frame", v6 + ipv6({balancer6, backend6, 4, 0, 200}, inner4()),
          m);
  for (std::size_t length = 14 + 20; length < 14 + 20 + 42; ++length)
    dropped("cut short", cut(v4 + outer4(4, inner4()), length), m);
  for (std::size_t length = 14; length < 14 + 20; ++length)
    untouched("cut within the outer header", cut(v4 + outer4(4, inner4()), length));
  for (std::size_t length = 14 + 40; length < 14 + 40 + 62; ++length)
    dropped("IPv6 cut short", cut(v6 + outer6(41, inner6()), length), m);
}

TEST_F(decap, sources) {
  demand(SLUICE_DECAP_CHECK_SOURCE);
  dropped("nobody is allowed yet", v4 + outer4(4, inner4()), SLUICE_DECAP_BAD_SOURCE);
  allow_source("10.0.1.0", 96 + 30);
  allow_source("2001:db8:a::", 64);
  expect("allowed", v4 + outer4(4, inner4()), SLUICE_DECAP_4IN4, v4 + inner4());
  expect("allowed IPv6", v6 + outer6(4, inner4()), SLUICE_DECAP_4IN6, v4 + inner4());
  dropped("next to the prefix", v4 + ipv4({"10.0.1.4", backend4, 4}, inner4()),
          SLUICE_DECAP_BAD_SOURCE);
  dropped("another IPv6", v6 + ipv6({"2001:db8:b::1", backend6, 4}, inner4()),
          SLUICE_DECAP_BAD_SOURCE);
  untouched("no tunnel: the check is not about it",
            v4 + ipv4({"10.9.9.9", backend4, 6}, tcp(1, 22)));
}

TEST_F(decap, vips) {
  demand(SLUICE_DECAP_CHECK_VIP);
  dropped("no VIP yet", v4 + outer4(4, inner4()), SLUICE_DECAP_BAD_VIP);
  program_->put(SLUICE_DECAP_VIPS_MAP, key(vip4), std::uint32_t{1});
  expect("VIP", v4 + outer4(4, inner4()), SLUICE_DECAP_4IN4, v4 + inner4());
  expect("VIP in IPv6", v6 + outer6(4, inner4()), SLUICE_DECAP_4IN6, v4 + inner4());
  dropped("another VIP", v4 + outer4(41, inner6()), SLUICE_DECAP_BAD_VIP);
  program_->put(SLUICE_DECAP_VIPS_MAP, key(vip6), std::uint32_t{1});
  expect("IPv6 VIP", v4 + outer4(41, inner6()), SLUICE_DECAP_6IN4, v6 + inner6());
}

// RFC 6040 figure 4. The inner checksum is right afterwards: the builder computes it anew.
TEST_F(decap, congestion_marks) {
  const auto marked = [](const bytes& inner) {
    return v4 + ipv4({balancer4, backend4, 4, {}, 0, 0xbb}, inner);  // DSCP 46, CE
  };
  expect("ECT(0)", marked(inner4(0x02)), SLUICE_DECAP_4IN4, v4 + inner4(0x03));
  expect("ECT(1), DSCP kept", marked(inner4(0x29)), SLUICE_DECAP_4IN4, v4 + inner4(0x2b));
  expect("CE", marked(inner4(0x03)), SLUICE_DECAP_4IN4, v4 + inner4(0x03));
  dropped("not ECT", marked(inner4(0x28)), SLUICE_DECAP_BAD_ECN);
  expect("6in6", v6 + ipv6({balancer6, backend6, 41, 0x03}, inner6(0x02)), SLUICE_DECAP_6IN6,
         v6 + inner6(0x03));
  dropped("6in6, not ECT", v6 + ipv6({balancer6, backend6, 41, 0x03}, inner6()),
          SLUICE_DECAP_BAD_ECN);
  for (unsigned id = 0; id < 256; ++id) {  // every checksum carry
    const auto inner = [id](unsigned tos) {
      return ipv4({"192.0.2." + std::to_string(id), vip4, 6, {}, 0, tos}, tcp(1, 80));
    };
    expect("checksum", marked(inner(0xfe)), SLUICE_DECAP_4IN4, v4 + inner(0xff));
  }
}

}  // namespace
}  // namespace sluice::test
