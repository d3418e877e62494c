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
  expect("the IPv4 VIP written as IPv6 is no packet that exists, but no harm",
         ethernet(0x86dd) + ipv6({client6, "::ffff:198.51.100.10", 6}, tcp(1, 444)),
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
