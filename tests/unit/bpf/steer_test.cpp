// SPDX-License-Identifier: Apache-2.0
// bpf/steer.bpf.c in the kernel, frame by frame: which go to the data plane.
#include <gtest/gtest.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/bpf_loader/vip_entries.hpp"
#include "tests/unit/bpf/frame.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

ip_address ip(const std::string& text) {
  const bytes b = address(text);
  ip_address result;
  if (b.size() == 16) {
    std::copy(b.begin(), b.end(), result.bytes.begin());
    return result;
  }
  return ip_address::v4({b[0], b[1], b[2], b[3]});
}

const std::string vip4 = "198.51.100.10";
const std::string vip6 = "2001:db8::10";
const std::string client4 = "192.0.2.7";
const std::string client6 = "2001:db8:1::7";

class steer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "loading BPF programs needs root";
    program_ = std::make_unique<program>("steer", "sluice_steer");
    const bpf_loader::vip vips[] = {
        {ip(vip4), ip_proto::tcp, 443, 443},   {ip(vip4), ip_proto::udp, 8000, 8100},
        {ip(vip4), ip_proto::udp, 9000, 9001}, {ip(vip6), ip_proto::tcp, 443, 443},
        {ip(vip6), ip_proto::udp, 0, 65535},
    };
    const auto entries = bpf_loader::make_vip_entries(vips);
    ASSERT_TRUE(entries);
    for (const auto& [key, value] : *entries) program_->put(SLUICE_VIP_SET_MAP, key, value);
  }
  void TearDown() override {
    if (socket_ >= 0) ::close(socket_);
  }

  // An AF_XDP socket with a ring is all that the map asks for.
  void start_data_plane() {
    socket_ = ::socket(AF_XDP, SOCK_RAW, 0);
    ASSERT_GE(socket_, 0);
    const int size = 64;
    ASSERT_EQ(::setsockopt(socket_, SOL_XDP, XDP_RX_RING, &size, sizeof(size)), 0);
    program_->put(SLUICE_XSKS_MAP, std::uint32_t{0}, socket_);
  }

  void expect(const char* what, const bytes& frame, sluice_steer_counter counter) {
    SCOPED_TRACE(what);
    const auto before = program_->counters(SLUICE_STEER_STATS_MAP, SLUICE_STEER_COUNTERS);
    const run_result result = program_->run(frame);
    const auto after = program_->counters(SLUICE_STEER_STATS_MAP, SLUICE_STEER_COUNTERS);
    EXPECT_EQ(counted(before, after), static_cast<int>(counter));
    EXPECT_EQ(result.verdict, counter == SLUICE_STEER_REDIRECTED ? XDP_REDIRECT : XDP_PASS);
    EXPECT_EQ(result.frame, frame);  // never touched
  }

  std::unique_ptr<program> program_;
  int socket_{-1};
};

TEST_F(steer, ipv4) {
  start_data_plane();
  const auto to_vip = [](unsigned protocol, const bytes& payload) {
    return ethernet(0x0800) + ipv4({client4, vip4, protocol}, payload);
  };
  expect("tcp to the service", to_vip(6, tcp(1000, 443)), SLUICE_STEER_REDIRECTED);
  expect("udp to the same port", to_vip(17, udp(1000, 443)), SLUICE_STEER_PASSED);
  expect("tcp to another port", to_vip(6, tcp(1000, 22)), SLUICE_STEER_PASSED);
  expect("source port is not looked at", to_vip(6, tcp(443, 22)), SLUICE_STEER_PASSED);
  expect("first of a range", to_vip(17, udp(1, 8000)), SLUICE_STEER_REDIRECTED);
  expect("last of a range", to_vip(17, udp(1, 8100)), SLUICE_STEER_REDIRECTED);
  expect("before a range", to_vip(17, udp(1, 7999)), SLUICE_STEER_PASSED);
  expect("after a range", to_vip(17, udp(1, 8101)), SLUICE_STEER_PASSED);
  expect("second range", to_vip(17, udp(1, 9001)), SLUICE_STEER_REDIRECTED);
  expect("tcp to a udp range", to_vip(6, tcp(1, 8000)), SLUICE_STEER_PASSED);
  expect("port 0", to_vip(6, tcp(1, 0)), SLUICE_STEER_PASSED);
  expect("icmp to the VIP", to_vip(1, fill(8)), SLUICE_STEER_PASSED);
  expect("sctp to the VIP", to_vip(132, udp(1, 443)), SLUICE_STEER_PASSED);
  expect("ipip to the VIP", to_vip(4, udp(1, 443)), SLUICE_STEER_PASSED);
  expect("another address", ethernet(0x0800) + ipv4({client4, "198.51.100.11", 6}, tcp(1, 443)),
         SLUICE_STEER_PASSED);
}

TEST_F(steer, ipv4_options_and_fragments) {
  start_data_plane();
  for (std::size_t words = 1; words <= 10; ++words)
    expect("options",
           ethernet(0x0800) + ipv4({client4, vip4, 6, fill(4 * words, 1)}, tcp(1000, 443)),
           SLUICE_STEER_REDIRECTED);
  expect("options, another port",
         ethernet(0x0800) + ipv4({client4, vip4, 6, fill(8, 1)}, tcp(1000, 22)),
         SLUICE_STEER_PASSED);
  expect("don't fragment", ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0x4000}, tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("first fragment", ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0x2000}, tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("first fragment, another port",
         ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0x2000}, tcp(1, 22)), SLUICE_STEER_PASSED);
  expect("middle fragment", ethernet(0x0800) + ipv4({client4, vip4, 17, {}, 0x2010}, fill(16)),
         SLUICE_STEER_REDIRECTED);
  expect("last fragment", ethernet(0x0800) + ipv4({client4, vip4, 17, {}, 0x0010}, fill(3)),
         SLUICE_STEER_REDIRECTED);
  expect("fragment to another address",
         ethernet(0x0800) + ipv4({client4, "198.51.100.11", 17, {}, 0x0010}, fill(16)),
         SLUICE_STEER_PASSED);
}

TEST_F(steer, ipv6) {
  start_data_plane();
  const auto to_vip = [](unsigned next, const bytes& payload) {
    return ethernet(0x86dd) + ipv6({client6, vip6, next}, payload);
  };
  expect("tcp", to_vip(6, tcp(1000, 443)), SLUICE_STEER_REDIRECTED);
  expect("tcp, another port", to_vip(6, tcp(1000, 444)), SLUICE_STEER_PASSED);
  expect("udp, any port", to_vip(17, udp(1000, 1)), SLUICE_STEER_REDIRECTED);
  expect("udp, port 65535", to_vip(17, udp(1000, 65535)), SLUICE_STEER_REDIRECTED);
  expect("udp, port 0", to_vip(17, udp(1000, 0)), SLUICE_STEER_REDIRECTED);
  expect("icmpv6", to_vip(58, fill(8)), SLUICE_STEER_PASSED);
  expect("no next header", to_vip(59, {}), SLUICE_STEER_PASSED);
  expect("esp", to_vip(50, fill(40)), SLUICE_STEER_PASSED);
  expect("hop-by-hop", to_vip(0, extension(6) + tcp(1, 443)), SLUICE_STEER_REDIRECTED);
  expect("long destination options", to_vip(60, extension(6, 40) + tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("three headers", to_vip(0, extension(43) + extension(60, 2) + extension(6) + tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("headers, another port", to_vip(0, extension(43) + extension(6) + tcp(1, 80)),
         SLUICE_STEER_PASSED);
  bytes chain;
  for (int i = 0; i < SLUICE_MAX_IPV6_HEADERS - 1; ++i) chain = extension(60) + chain;
  expect("as many as are walked", to_vip(60, chain + extension(6) + tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("too many", to_vip(60, chain + extension(60) + extension(60) + extension(6) + tcp(1, 443)),
         SLUICE_STEER_MALFORMED);
  expect("first fragment", to_vip(44, fragment_header(6, 1) + tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("atomic fragment", to_vip(44, fragment_header(6, 0) + tcp(1, 22)), SLUICE_STEER_PASSED);
  expect("later fragment", to_vip(44, fragment_header(6, 0x0100) + fill(8)),
         SLUICE_STEER_REDIRECTED);
  expect(
      "later fragment to another address",
      ethernet(0x86dd) + ipv6({client6, "2001:db8::11", 44}, fragment_header(6, 0x100) + fill(8)),
      SLUICE_STEER_PASSED);
  expect("the IPv4 VIP written as IPv6 is no packet that exists",
         ethernet(0x86dd) + ipv6({client6, "::ffff:198.51.100.10", 6}, tcp(1, 443)),
         SLUICE_STEER_MALFORMED);
}

TEST_F(steer, icmp) {
  start_data_plane();
  const auto to = [](const std::string& destination, const bytes& payload) {
    return ethernet(0x0800) + ipv4({client4, destination, 1}, payload);
  };
  const auto to6 = [](const std::string& destination, const bytes& payload) {
    return ethernet(0x86dd) + ipv6({client6, destination, 58}, payload);
  };
  const bytes quote = ipv4({vip4, client4, 6}, tcp(443, 1));
  const bytes quote6 = ipv6({vip6, client6, 6}, tcp(443, 1));
  for (unsigned type = 0; type < 256; ++type) {
    const bool taken = type == 3 || type == 8 || type == 11 || type == 12;
    expect(("type " + std::to_string(type)).c_str(), to(vip4, icmp(type) + quote),
           taken ? SLUICE_STEER_REDIRECTED : SLUICE_STEER_PASSED);
    // 133 to 137: neighbour discovery.
    const bool taken6 = (type >= 1 && type <= 4) || type == 128;
    expect(("v6 type " + std::to_string(type)).c_str(), to6(vip6, icmp(type) + quote6),
           taken6 ? SLUICE_STEER_REDIRECTED : SLUICE_STEER_PASSED);
  }
  expect("ping of another address", to("198.51.100.11", icmp(8)), SLUICE_STEER_PASSED);
  expect("error to another address", to("198.51.100.11", icmp(3) + quote), SLUICE_STEER_PASSED);
  expect("ping6 of another address", to6("2001:db8::11", icmp(128)), SLUICE_STEER_PASSED);
  expect("cut short", to(vip4, fill(7, 8)), SLUICE_STEER_MALFORMED);
  expect("cut short, v6", to6(vip6, fill(7, 128)), SLUICE_STEER_MALFORMED);
  expect("behind an extension header",
         ethernet(0x86dd) + ipv6({client6, vip6, 60}, extension(58) + icmp(128)),
         SLUICE_STEER_REDIRECTED);
  expect("fragment of a ping", ethernet(0x0800) + ipv4({client4, vip4, 1, {}, 0x0010}, fill(16)),
         SLUICE_STEER_REDIRECTED);
}

TEST_F(steer, icmp_without_a_data_plane_is_the_kernels) {
  expect("ping", ethernet(0x0800) + ipv4({client4, vip4, 1}, icmp(8)), SLUICE_STEER_NO_SOCKET);
}

TEST_F(steer, errors_about_our_own_tunnels) {
  start_data_plane();
  const auto source = [&](const std::string& text, std::uint32_t length) {
    sluice_prefix key{.length = length, .bytes = {}};
    std::memcpy(key.bytes, ip(text).bytes.data(), sizeof key.bytes);
    program_->put(SLUICE_ENCAP_SOURCES_MAP, key, std::uint32_t{1});
  };
  source("192.0.2.0", 96 + 24);
  source("2001:db8:e::1", 128);
  program_->put(SLUICE_STEER_CONFIG_MAP, std::uint32_t{0}, sluice_steer_config{0, htons(6080), 0});
  const auto error = [](const bytes& quote, unsigned type = 3) {
    return ethernet(0x0800) + ipv4({"10.0.0.9", "192.0.2.77", 1}, icmp(type) + quote);
  };
  const auto error6 = [](const bytes& quote, unsigned type = 2) {
    return ethernet(0x86dd) + ipv6({"2001:db8:9::9", "2001:db8:e::1", 58}, icmp(type) + quote);
  };
  const auto outer = [](unsigned protocol, const bytes& inner) {
    return ipv4({"192.0.2.77", "10.0.1.11", protocol}, inner);
  };
  const auto outer6 = [](unsigned protocol, const bytes& inner) {
    return ipv6({"2001:db8:e::1", "2001:db8:1::11", protocol}, inner);
  };
  for (const unsigned protocol : {4u, 41u, 47u}) {
    expect("tunnel", error(outer(protocol, fill(8))), SLUICE_STEER_REDIRECTED);
    expect("tunnel, v6", error6(outer6(protocol, fill(8))), SLUICE_STEER_REDIRECTED);
  }
  expect("gue", error(outer(17, udp(50000, 6080))), SLUICE_STEER_REDIRECTED);
  expect("gue, v6", error6(outer6(17, udp(50000, 6080))), SLUICE_STEER_REDIRECTED);
  expect("another UDP port is the host's", error(outer(17, udp(50000, 53))), SLUICE_STEER_PASSED);
  expect("TCP is the host's", error(outer(6, tcp(50000, 80))), SLUICE_STEER_PASSED);
  expect("not our source", error(ipv4({"192.0.3.77", "10.0.1.11", 4}, fill(8))),
         SLUICE_STEER_PASSED);
  expect("not our source, v6", error6(ipv6({"2001:db8:e::2", "2001:db8:1::1", 41}, fill(8))),
         SLUICE_STEER_PASSED);
  expect("time exceeded", error(outer(4, fill(8)), 11), SLUICE_STEER_REDIRECTED);
  expect("ping that quotes", error(outer(4, fill(8)), 8), SLUICE_STEER_PASSED);
  expect("quote cut short", error(cut(outer(4, {}), 19)), SLUICE_STEER_PASSED);
  expect("gue cut short", error(outer(17, fill(3))), SLUICE_STEER_PASSED);
  program_->put(SLUICE_STEER_CONFIG_MAP, std::uint32_t{0}, sluice_steer_config{});
  expect("no gue in use", error(outer(17, udp(50000, 6080))), SLUICE_STEER_PASSED);
  expect("no gue in use, port 0", error(outer(17, udp(50000, 0))), SLUICE_STEER_PASSED);
}

TEST_F(steer, replies_of_nat_backends) {
  start_data_plane();
  const bpf_loader::vip sources[] = {{ip("10.0.1.11"), ip_proto::tcp, 8080, 8080},
                                     {ip("10.0.1.12"), ip_proto::udp, 0, 65535},
                                     {ip("2001:db8:1::11"), ip_proto::tcp, 8080, 8080}};
  const auto entries = bpf_loader::make_vip_entries(sources);
  ASSERT_TRUE(entries);
  for (const auto& [key, value] : *entries) program_->put(SLUICE_NAT_SOURCES_MAP, key, value);
  sluice_address host{};
  std::memcpy(host.bytes, ip("10.0.1.1").bytes.data(), sizeof host.bytes);
  program_->put(SLUICE_HOST_SET_MAP, host, std::uint32_t{1});

  const auto from = [](const std::string& backend, unsigned protocol, const bytes& payload,
                       const std::string& to = client4, unsigned fragment = 0) {
    return ethernet(0x0800) + ipv4({backend, to, protocol, {}, fragment}, payload);
  };
  expect("no nat in use", from("10.0.1.11", 6, tcp(8080, 1)), SLUICE_STEER_PASSED);
  program_->put(SLUICE_STEER_CONFIG_MAP, std::uint32_t{0},
                sluice_steer_config{SLUICE_STEER_NAT, 0, 0});
  expect("reply", from("10.0.1.11", 6, tcp(8080, 1)), SLUICE_STEER_REDIRECTED);
  expect("another port", from("10.0.1.11", 6, tcp(22, 1)), SLUICE_STEER_PASSED);
  expect("another protocol", from("10.0.1.11", 17, udp(8080, 1)), SLUICE_STEER_PASSED);
  expect("to the backend's port", from("10.0.1.13", 6, tcp(1, 8080)), SLUICE_STEER_PASSED);
  expect("any port", from("10.0.1.12", 17, udp(1, 1)), SLUICE_STEER_REDIRECTED);
  expect("health check of the host", from("10.0.1.11", 6, tcp(8080, 1), "10.0.1.1"),
         SLUICE_STEER_PASSED);
  expect("fragment", from("10.0.1.12", 17, fill(16), client4, 0x0010), SLUICE_STEER_REDIRECTED);
  expect("fragment to the host", from("10.0.1.12", 17, fill(16), "10.0.1.1", 0x0010),
         SLUICE_STEER_PASSED);
  expect("v6", ethernet(0x86dd) + ipv6({"2001:db8:1::11", client6, 6}, tcp(8080, 1)),
         SLUICE_STEER_REDIRECTED);
  expect("v6, another port", ethernet(0x86dd) + ipv6({"2001:db8:1::11", client6, 6}, tcp(80, 1)),
         SLUICE_STEER_PASSED);

  // Errors to clients about what went to these backends.
  const auto error = [](const bytes& quote, const std::string& to = client4, unsigned type = 3) {
    return ethernet(0x0800) + ipv4({"10.0.9.9", to, 1}, icmp(type) + quote);
  };
  const bytes quote = ipv4({client4, "10.0.1.11", 6}, tcp(1, 8080));
  expect("error", error(quote), SLUICE_STEER_REDIRECTED);
  expect("error, 8 bytes quoted", error(cut(quote, 28)), SLUICE_STEER_REDIRECTED);
  expect("error, cut short", error(cut(quote, 23)), SLUICE_STEER_PASSED);
  expect("error about a packet with options",
         error(ipv4({client4, "10.0.1.11", 6, fill(4, 1)}, tcp(1, 8080))), SLUICE_STEER_REDIRECTED);
  expect("error, UDP", error(ipv4({client4, "10.0.1.12", 17}, udp(1, 1))), SLUICE_STEER_REDIRECTED);
  expect("error, another port", error(ipv4({client4, "10.0.1.11", 6}, tcp(8080, 1))),
         SLUICE_STEER_PASSED);
  expect("error about another ICMP packet", error(ipv4({client4, "10.0.1.11", 1}, icmp(8))),
         SLUICE_STEER_PASSED);
  expect("error to the host", error(quote, "10.0.1.1"), SLUICE_STEER_PASSED);
  expect("ping that quotes", error(quote, client4, 8), SLUICE_STEER_PASSED);
  const auto error6 = [](const bytes& about) {
    return ethernet(0x86dd) + ipv6({"2001:db8:9::9", client6, 58}, icmp(2) + about);
  };
  expect("error, v6", error6(ipv6({client6, "2001:db8:1::11", 6}, tcp(1, 8080))),
         SLUICE_STEER_REDIRECTED);
  expect("error, v6, about a first fragment",
         error6(ipv6({client6, "2001:db8:1::11", 44}, fragment_header(6, 1) + tcp(1, 8080))),
         SLUICE_STEER_REDIRECTED);
  expect("error, v6, another port", error6(ipv6({client6, "2001:db8:1::11", 6}, tcp(1, 80))),
         SLUICE_STEER_PASSED);
}

TEST_F(steer, vlan_tags) {
  start_data_plane();
  const bytes packet = ipv4({client4, vip4, 6}, tcp(1, 443));
  expect("one tag", ethernet(0x8100) + vlan(7, 0x0800) + packet, SLUICE_STEER_REDIRECTED);
  expect("QinQ", ethernet(0x88a8) + vlan(7, 0x8100) + vlan(8, 0x0800) + packet,
         SLUICE_STEER_REDIRECTED);
  expect("three tags",
         ethernet(0x88a8) + vlan(7, 0x8100) + vlan(8, 0x8100) + vlan(9, 0x0800) + packet,
         SLUICE_STEER_PASSED);
  expect("one tag, IPv6",
         ethernet(0x8100) + vlan(7, 0x86dd) + ipv6({client6, vip6, 6}, tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  expect("tag cut short", ethernet(0x8100) + fill(3), SLUICE_STEER_MALFORMED);
}

TEST_F(steer, the_rest_is_the_kernels) {
  start_data_plane();
  expect("arp", ethernet(0x0806) + fill(28), SLUICE_STEER_PASSED);
  expect("lldp", ethernet(0x88cc) + fill(46), SLUICE_STEER_PASSED);
  expect("802.3 length", ethernet(60) + fill(46), SLUICE_STEER_PASSED);
}

TEST_F(steer, truncated_anywhere) {
  start_data_plane();
  // Ports end at 38, and at 58 + 8 for IPv6 with an extension header.
  const bytes v4 = ethernet(0x0800) + ipv4({client4, vip4, 6}, tcp(1, 443));
  for (std::size_t length = 14; length <= v4.size(); ++length)
    expect(("v4, " + std::to_string(length) + " bytes").c_str(), cut(v4, length),
           length < 38 ? SLUICE_STEER_MALFORMED : SLUICE_STEER_REDIRECTED);
  const bytes v6 = ethernet(0x86dd) + ipv6({client6, vip6, 60}, extension(6) + tcp(1, 443));
  for (std::size_t length = 14; length <= v6.size(); ++length)
    expect(("v6, " + std::to_string(length) + " bytes").c_str(), cut(v6, length),
           length < 66 ? SLUICE_STEER_MALFORMED : SLUICE_STEER_REDIRECTED);
  expect("extension that points beyond the end",
         ethernet(0x86dd) + ipv6({client6, vip6, 60}, bytes{6, 255} + fill(30)),
         SLUICE_STEER_MALFORMED);
  expect("options beyond the end",
         ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0, 0, 0x4f}, tcp(1, 443)),
         SLUICE_STEER_MALFORMED);
  expect("IPv4 header length 4",
         ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0, 0, 0x44}, tcp(1, 443)),
         SLUICE_STEER_MALFORMED);
  expect("version 6 under the IPv4 ethertype",
         ethernet(0x0800) + ipv4({client4, vip4, 6, {}, 0, 0, 0x65}, tcp(1, 443)),
         SLUICE_STEER_MALFORMED);
  expect("version 4 under the IPv6 ethertype",
         ethernet(0x86dd) + ipv6({client6, vip6, 6, 0, 0, 4}, tcp(1, 443)), SLUICE_STEER_MALFORMED);
}

TEST_F(steer, without_a_data_plane_the_kernel_gets_it) {
  expect("tcp to the service", ethernet(0x0800) + ipv4({client4, vip4, 6}, tcp(1, 443)),
         SLUICE_STEER_NO_SOCKET);
  expect("not for a VIP", ethernet(0x0800) + ipv4({client4, vip4, 6}, tcp(1, 22)),
         SLUICE_STEER_PASSED);
  start_data_plane();
  expect("data plane there", ethernet(0x0800) + ipv4({client4, vip4, 6}, tcp(1, 443)),
         SLUICE_STEER_REDIRECTED);
  ::close(std::exchange(socket_, -1));
  ::usleep(50000);  // the kernel takes the socket out of the map when it is released
  expect("data plane killed", ethernet(0x0800) + ipv4({client4, vip4, 6}, tcp(1, 443)),
         SLUICE_STEER_NO_SOCKET);
}

}  // namespace
}  // namespace sluice::test
