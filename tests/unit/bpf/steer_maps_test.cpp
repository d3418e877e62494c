// SPDX-License-Identifier: Apache-2.0
// The steering program on a veth in a network namespace of its own, and the two
// processes that meet over it: the control plane's steer_maps, the data plane's
// take_over_xdp().
#include "controlplane/bpf_loader/steer_maps.hpp"

#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dataplane/port/xdp_attach.hpp"
#include "tests/unit/bpf/program.hpp"

namespace sluice::test {
namespace {

using bpf_loader::steer_error;
using bpf_loader::steer_maps;
using bpf_loader::vip;

const ip_address vip_a = ip_address::v4({198, 51, 100, 10});
const ip_address vip_b = ip_address::v4({198, 51, 100, 11});
const std::vector<vip> two_services{{vip_a, ip_proto::tcp, 443, 443},
                                    {vip_b, ip_proto::udp, 8000, 8100}};

// What DPDK's PMD does, and then dies: the program is loaded and attached, and only
// the interface keeps it.
void attach(const program& steer, const char* interface) {
  const int error = bpf_xdp_attach(static_cast<int>(if_nametoindex(interface)), steer.fd(),
                                   XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
  ASSERT_EQ(error, 0) << std::strerror(-error);
}
void attach_and_leave(const char* interface) {
  const program steer{"steer", SLUICE_STEER_PROGRAM};
  attach(steer, interface);
}

class steer_on_veth : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);  // the last one goes with its veths
    ASSERT_EQ(std::system("ip link add v0 type veth peer name v1"), 0);
  }
  steer_maps maps_{"v0"};
};

TEST_F(steer_on_veth, without_a_program) {
  const auto update = maps_.set_vips(two_services);
  ASSERT_FALSE(update);
  EXPECT_EQ(update.error().what, steer_error::kind::not_attached);
  EXPECT_FALSE(maps_.counters());
  EXPECT_FALSE(maps_.detach());
  EXPECT_TRUE(detach_xdp("v0"));
  EXPECT_FALSE(take_over_xdp("v0").value().found);
}

TEST_F(steer_on_veth, unknown_interface) {
  const auto update = steer_maps{"nonesuch"}.set_vips(two_services);
  ASSERT_FALSE(update);
  EXPECT_EQ(update.error().what, steer_error::kind::failed);
  EXPECT_NE(update.error().text.find("nonesuch"), std::string::npos);
  EXPECT_FALSE(take_over_xdp("nonesuch"));
}

TEST_F(steer_on_veth, set_vips_converges) {
  attach_and_leave("v0");
  const auto first = maps_.set_vips(two_services);
  ASSERT_TRUE(first) << first.error().text;
  EXPECT_EQ(first->added, 4u);  // two services, two address markers
  EXPECT_EQ(first->removed, 0u);

  const auto again = maps_.set_vips(two_services).value();
  EXPECT_EQ(again.added + again.removed, 0u);

  std::vector<vip> changed{two_services[0], {vip_b, ip_proto::udp, 8000, 8200}};
  EXPECT_EQ(maps_.set_vips(changed).value().added, 1u);
  changed.pop_back();
  const auto fewer = maps_.set_vips(changed).value();
  EXPECT_EQ(fewer.added, 0u);
  EXPECT_EQ(fewer.removed, 2u);
  EXPECT_EQ(maps_.set_vips({}).value().removed, 2u);

  const auto refused = maps_.set_vips(std::vector<vip>{{vip_a, ip_proto::tcp, 2, 1}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what, steer_error::kind::invalid);
}

TEST_F(steer_on_veth, many_services) {
  attach_and_leave("v0");
  std::vector<vip> vips;
  for (unsigned i = 0; i < 2000; ++i)
    vips.push_back(
        {ip_address::v4({10, 1, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}),
         ip_proto::tcp, 80, 80});
  EXPECT_EQ(maps_.set_vips(vips).value().added, 4000u);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(maps_.set_vips(vips).value().added, 0u);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  RecordProperty("compare_2000_services_ms", std::to_string(took.count()));
  std::printf("comparing 2000 services: %.2f ms\n", took.count());
}

TEST_F(steer_on_veth, interfaces_do_not_share) {
  attach_and_leave("v0");
  attach_and_leave("v1");
  steer_maps other{"v1"};
  EXPECT_NE(maps_.program_id().value(), other.program_id().value());
  EXPECT_EQ(maps_.set_vips(two_services).value().added, 4u);
  EXPECT_EQ(other.set_vips({}).value().removed, 0u);
  EXPECT_EQ(maps_.set_vips(two_services).value().added, 0u);
}

TEST_F(steer_on_veth, counts_what_the_interface_received) {
  attach_and_leave("v0");
  ASSERT_EQ(std::system("ip link set v0 up; ip link set v1 up"), 0);
  // Bringing the link up makes the peer say router solicitations and the like.
  for (int i = 0; i < 100 && maps_.counters().value().passed == 0; ++i) ::usleep(50000);
  const auto counters = maps_.counters().value();
  EXPECT_GT(counters.passed, 0u);
  EXPECT_EQ(counters.redirected, 0u);
}

TEST_F(steer_on_veth, take_over_after_a_kill) {
  attach_and_leave("v0");
  const auto before = maps_.program_id().value();
  ASSERT_EQ(maps_.set_vips(two_services).value().added, 4u);

  const auto leftover = take_over_xdp("v0");
  ASSERT_TRUE(leftover) << leftover.error();
  EXPECT_TRUE(leftover->found);
  EXPECT_EQ(leftover->vips.size(), 4u);
  EXPECT_FALSE(maps_.program_id());

  EXPECT_FALSE(restore_vips("v0", *leftover));  // not yet attached
  attach_and_leave("v0");
  EXPECT_NE(maps_.program_id().value(), before);
  EXPECT_EQ(restore_vips("v0", *leftover).value(), 4u);
  EXPECT_EQ(maps_.set_vips(two_services).value().added, 0u);

  // The control plane was quicker: what it wrote stays alone.
  ASSERT_EQ(maps_.set_vips(std::vector<vip>{two_services[0]}).value().removed, 2u);
  EXPECT_EQ(restore_vips("v0", *leftover).value(), 0u);
  EXPECT_EQ(maps_.set_vips(std::vector<vip>{two_services[0]}).value().removed, 0u);

  EXPECT_TRUE(detach_xdp("v0"));
  EXPECT_FALSE(maps_.program_id());
}

TEST_F(steer_on_veth, the_interface_of_a_running_data_plane_is_not_taken) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const program steer{"steer", SLUICE_STEER_PROGRAM};
    attach(steer, "v0");
    const char byte = 1;
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);  // or a child that fails would keep us waiting
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);

  const auto refused = take_over_xdp("v0");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().find(std::to_string(child)), std::string::npos) << refused.error();
  EXPECT_TRUE(maps_.program_id());  // still there

  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  const auto taken = take_over_xdp("v0");
  ASSERT_TRUE(taken) << taken.error();
  EXPECT_TRUE(taken->found);
}

TEST_F(steer_on_veth, a_foreign_program_is_left_alone) {
  const program decap{"decap", SLUICE_DECAP_PROGRAM};
  attach(decap, "v0");
  EXPECT_EQ(maps_.set_vips(two_services).error().what, steer_error::kind::not_attached);
  const auto refused = take_over_xdp("v0");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().find(SLUICE_DECAP_PROGRAM), std::string::npos);
  EXPECT_TRUE(detach_xdp("v0"));
  bpf_xdp_query_opts query{};
  query.sz = sizeof(query);
  ASSERT_EQ(bpf_xdp_query(static_cast<int>(if_nametoindex("v0")), 0, &query), 0);
  EXPECT_NE(query.prog_id, 0u);
}

}  // namespace
}  // namespace sluice::test
