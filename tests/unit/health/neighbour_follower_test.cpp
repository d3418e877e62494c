// SPDX-License-Identifier: Apache-2.0
// The follower against the real kernel: veth pairs between two network namespaces.
#include "controlplane/neighbour/neighbour_follower.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <system_error>

#include "tests/unit/health/peer_namespace.hpp"
#include "tests/unit/health/test_servers.hpp"

namespace sluice::neighbour {
namespace {

using namespace std::chrono_literals;
using test::address;

constexpr mac_address peer_mac{0x02, 0, 0, 0, 0, 0x11};
constexpr mac_address own_mac{0x02, 0, 0, 0, 0, 0x01};

class neighbours : public testing::Test {
 protected:
  void SetUp() override {
    try {
      peer_ = std::make_unique<test::peer_namespace>();
    } catch (const std::system_error& e) {
      GTEST_SKIP() << "needs root for network namespaces: " << e.what();
    }
    // up0 <-> peer0 carries the backends; up1 <-> peer1 is a second way out; mgmt is no port.
    here(
        "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad\n"
        "ip link add up0 mtu 1500 address 02:00:00:00:00:01 type veth peer name peer0 "
        "address 02:00:00:00:00:11\n"
        "ip link add up1 mtu 1400 type veth peer name peer1 address 02:00:00:00:00:22\n"
        "ip link add mgmt type veth peer name mgmt1\n"
        "ip link set peer0 netns " +
        pid() + "\nip link set peer1 netns " + pid());
    there(
        "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad\n"
        "ip link set peer0 up; ip link set peer1 up\n"
        "ip addr add 10.0.1.11/24 dev peer0; ip addr add 10.0.1.1/24 dev peer0\n"
        "ip addr add 10.0.2.1/24 dev peer1\n"
        "ip addr add 2001:db8:1::11/64 dev peer0 nodad");
    here(
        "ip link set lo up; ip link set up0 up; ip link set up1 up; ip link set mgmt up\n"
        "ip link set mgmt1 up\n"
        "ip addr add 10.0.1.100/24 dev up0; ip addr add 10.0.2.100/24 dev up1\n"
        "ip addr add 192.168.77.1/24 dev mgmt\n"
        "ip addr add 2001:db8:1::100/64 dev up0 nodad\n"
        "ip route add 10.9.0.0/16 via 10.0.1.1");
    start({});
  }

  void start(follower_options options) {
    follower_.reset();
    loop_ = std::make_unique<event_loop>();
    follower_ = std::make_unique<neighbour_follower>(
        *loop_,
        [this](const std::vector<ip_address>& changed) {
          for (const ip_address& a : changed) told_.push_back(*follower_->find(a));
          if (done_ && done_()) loop_->stop();
        },
        [this] {
          ++interface_changes_;
          if (done_ && done_()) loop_->stop();
        },
        options);
    follower_->set_interfaces({{"up0", "port0"}, {"up1", "port1"}});
  }

  static void here(const std::string& command) { test::peer_namespace::here(command); }
  void there(const std::string& command) const { peer_->there(command); }
  [[nodiscard]] std::string pid() const { return std::to_string(peer_->pid()); }

  next_hop at(const char* a) { return follower_->find(address(a)).value(); }
  // Runs the loop until the condition holds after a callback; false after the time.
  bool until(std::function<bool()> condition, event_loop::duration limit = 5s) {
    done_ = std::move(condition);
    if (!done_()) loop_->run_for(limit);
    const bool held = done_();
    done_ = nullptr;
    return held;
  }
  bool until_state(const char* a, resolution r, event_loop::duration limit = 5s) {
    return until([&] { return at(a).state == r; }, limit);
  }
  static double ms_since(event_loop::time_point t) {
    return std::chrono::duration<double, std::milli>(event_loop::now() - t).count();
  }

  std::unique_ptr<test::peer_namespace> peer_;
  std::unique_ptr<event_loop> loop_;
  std::unique_ptr<neighbour_follower> follower_;
  std::vector<next_hop> told_;
  std::function<bool()> done_;
  int interface_changes_{0};
};

TEST_F(neighbours, resolves_on_link_addresses_of_both_families) {
  const auto begin = event_loop::now();
  follower_->set_addresses({address("10.0.1.11"), address("2001:db8:1::11")});
  EXPECT_EQ(at("10.0.1.11").state, resolution::incomplete);
  ASSERT_TRUE(until([&] {
    return at("10.0.1.11").state == resolution::resolved &&
           at("2001:db8:1::11").state == resolution::resolved;
  }));
  std::printf("two on-link neighbours resolved in %.0f ms\n", ms_since(begin));
  for (const char* a : {"10.0.1.11", "2001:db8:1::11"}) {
    const next_hop h = at(a);
    EXPECT_EQ(h.mac, peer_mac) << a;
    EXPECT_EQ(h.via, address(a));
    EXPECT_EQ(h.interface, "up0");
    EXPECT_EQ(h.port, "port0");
    EXPECT_EQ(h.mtu, 1500U);
    EXPECT_EQ(h.reason, "");
  }
  // Another follower finds it in the kernel's table at once, without a callback.
  start({});
  told_.clear();
  follower_->set_addresses({address("10.0.1.11")});
  EXPECT_EQ(at("10.0.1.11").state, resolution::resolved);
  loop_->run_for(100ms);
  EXPECT_TRUE(told_.empty());
}

TEST_F(neighbours, resolves_through_a_gateway_and_takes_the_routes_mtu) {
  here("ip route add 10.8.0.0/16 via 10.0.1.1 mtu 1280");
  follower_->set_addresses({address("10.9.1.1"), address("10.9.1.2"), address("10.8.0.5")});
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  EXPECT_EQ(at("10.9.1.1").via, address("10.0.1.1"));
  EXPECT_EQ(at("10.9.1.1").mac, peer_mac);
  EXPECT_EQ(at("10.9.1.2").state, resolution::resolved);  // the same neighbour
  EXPECT_EQ(at("10.8.0.5").mtu, 1280U);
  EXPECT_EQ(follower_->counters().solicitations, 1U);
}

TEST_F(neighbours, an_ipv4_route_over_an_ipv6_gateway) {
  here("ip route add 10.7.0.0/16 via inet6 2001:db8:1::11 dev up0");
  follower_->set_addresses({address("10.7.0.1")});
  ASSERT_TRUE(until_state("10.7.0.1", resolution::resolved));
  EXPECT_EQ(at("10.7.0.1").via, address("2001:db8:1::11"));
  EXPECT_EQ(at("10.7.0.1").mac, peer_mac);
}

TEST_F(neighbours, a_changed_mac_is_noticed) {
  follower_->set_addresses({address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  const auto begin = event_loop::now();
  here("ip neigh replace 10.0.1.11 lladdr 02:00:00:00:00:99 dev up0 nud reachable");
  ASSERT_TRUE(until([&] { return at("10.0.1.11").mac == mac_address{2, 0, 0, 0, 0, 0x99}; }));
  std::printf("a changed MAC is told after %.0f ms (the `ip` command included)\n", ms_since(begin));
  EXPECT_LT(ms_since(begin), 500);
}

TEST_F(neighbours, a_peer_that_really_changes_its_mac_is_found_again) {
  here(
      "echo 300 > /proc/sys/net/ipv4/neigh/up0/base_reachable_time_ms\n"
      "echo 1 > /proc/sys/net/ipv4/neigh/up0/delay_first_probe_time\n"
      "echo 100 > /proc/sys/net/ipv4/neigh/up0/retrans_time_ms");
  follower_options options;
  options.keep_fresh = 300ms;
  start(options);
  follower_->set_addresses({address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  const auto begin = event_loop::now();
  there("ip link set peer0 address 02:00:00:00:00:33");
  ASSERT_TRUE(until([&] { return at("10.0.1.11").mac == mac_address{2, 0, 0, 0, 0, 0x33}; }, 8s));
  std::printf("a silent change of MAC is found after %.0f ms (times of the kernel shortened)\n",
              ms_since(begin));
}

TEST_F(neighbours, a_used_entry_does_not_stay_stale) {
  here("echo 1 > /proc/sys/net/ipv4/neigh/up0/delay_first_probe_time");
  follower_options options;
  options.keep_fresh = 200ms;
  start(options);
  follower_->set_addresses({address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  here("ip neigh replace 10.0.1.11 lladdr 02:00:00:00:00:11 dev up0 nud stale");
  told_.clear();
  loop_->run_for(1600ms);
  here("ip -4 neigh show 10.0.1.11 dev up0 | grep -q REACHABLE");
  EXPECT_TRUE(told_.empty());  // and in the meantime the MAC was good
}

TEST_F(neighbours, a_forgotten_entry_keeps_its_mac_and_is_asked_for_again) {
  follower_options options;
  options.retry_first = 100ms;
  start(options);
  follower_->set_addresses({address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  loop_->run_for(150ms);
  told_.clear();
  here("ip neigh flush dev up0");
  loop_->run_for(300ms);
  EXPECT_EQ(at("10.0.1.11").state, resolution::resolved);
  here("ip -4 neigh show 10.0.1.11 dev up0 | grep -q 02:00:00:00:00:11");
  for (const next_hop& h : told_) EXPECT_EQ(h.mac, peer_mac) << h.reason;
}

TEST_F(neighbours, silence_is_unreachable_and_is_asked_again) {
  here("echo 100 > /proc/sys/net/ipv4/neigh/up0/retrans_time_ms");
  follower_options options;
  options.retry_first = 200ms;
  options.retry_last = 400ms;
  start(options);
  follower_->set_addresses({address("10.0.1.50")});
  ASSERT_TRUE(until_state("10.0.1.50", resolution::unreachable));
  EXPECT_EQ(at("10.0.1.50").reason, "the neighbour does not answer");
  EXPECT_EQ(at("10.0.1.50").mac, mac_address{});
  there("ip addr add 10.0.1.50/24 dev peer0");
  ASSERT_TRUE(until_state("10.0.1.50", resolution::resolved));
  EXPECT_EQ(at("10.0.1.50").mac, peer_mac);
}

TEST_F(neighbours, a_changed_route_is_followed) {
  follower_->set_addresses({address("10.9.1.1"), address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  auto begin = event_loop::now();
  here("ip route replace 10.9.0.0/16 via 10.0.2.1");
  ASSERT_TRUE(until([&] {
    return at("10.9.1.1").port == "port1" && at("10.9.1.1").state == resolution::resolved;
  }));
  std::printf("a changed route is followed and its gateway resolved in %.0f ms\n", ms_since(begin));
  EXPECT_EQ(at("10.9.1.1").mac, (mac_address{2, 0, 0, 0, 0, 0x22}));
  EXPECT_EQ(at("10.9.1.1").mtu, 1400U);

  here("ip route del 10.9.0.0/16");
  ASSERT_TRUE(until_state("10.9.1.1", resolution::no_route));
  EXPECT_EQ(at("10.9.1.1").reason, "no route");
  here("ip route add default via 10.0.1.1");
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  here("ip rule add to 10.9.0.0/16 priority 10 prohibit");
  ASSERT_TRUE(until_state("10.9.1.1", resolution::no_route));
}

TEST_F(neighbours, routes_that_lead_to_no_backend_cost_no_lookup) {
  follower_->set_addresses({address("10.9.1.1"), address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  loop_->run_for(100ms);
  const auto before = follower_->counters().route_lookups;
  here("for i in $(seq 1 200); do echo route add 10.20.$i.0/24 via 10.0.1.1; done | ip -batch -");
  loop_->run_for(100ms);
  EXPECT_EQ(follower_->counters().route_lookups, before);
  here("ip route add 10.9.1.0/24 via 10.0.2.1");
  ASSERT_TRUE(until([&] { return at("10.9.1.1").port == "port1"; }));
  EXPECT_EQ(follower_->counters().route_lookups, before + 1);
}

TEST_F(neighbours, why_there_is_no_route_is_said) {
  here("ip route add blackhole 10.66.0.0/16");
  follower_->set_addresses({address("203.0.113.1"), address("10.0.1.100"), address("192.168.77.5"),
                            address("10.66.0.1"), address("2001:db8:ffff::1"),
                            address("224.0.0.5")});
  for (const next_hop& h : follower_->snapshot()) EXPECT_EQ(h.state, resolution::no_route);
  EXPECT_EQ(at("203.0.113.1").reason, "no route");
  EXPECT_EQ(at("2001:db8:ffff::1").reason, "no route");
  EXPECT_EQ(at("10.0.1.100").reason, "the address is this host's own");
  EXPECT_EQ(at("192.168.77.5").reason,
            "the route leaves through mgmt, which is not a port of the data plane");
  EXPECT_NE(at("10.66.0.1").reason, "");
  follower_->set_interfaces({{"up0", "port0"}, {"mgmt", "port9"}});
  ASSERT_TRUE(until([&] { return at("192.168.77.5").port == "port9"; }));
}

TEST_F(neighbours, link_down_and_up_are_noticed) {
  follower_->set_addresses({address("10.0.1.11"), address("10.9.1.1")});
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  auto begin = event_loop::now();
  there("ip link set peer0 down");  // our carrier goes
  ASSERT_TRUE(until_state("10.0.1.11", resolution::unreachable));
  std::printf("a lost carrier is told after %.0f ms\n", ms_since(begin));
  EXPECT_EQ(at("10.0.1.11").reason, "the link of up0 is down");
  begin = event_loop::now();
  there("ip link set peer0 up");
  ASSERT_TRUE(until_state("10.0.1.11", resolution::resolved));
  std::printf("and back after %.0f ms\n", ms_since(begin));
  here("ip link set up0 down");  // the routes go too
  ASSERT_TRUE(until_state("10.9.1.1", resolution::no_route));
}

TEST_F(neighbours, interfaces_are_described) {
  auto all = follower_->interfaces();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].name, "up0");
  EXPECT_EQ(all[0].port, "port0");
  EXPECT_EQ(all[0].mac, own_mac);
  EXPECT_EQ(all[0].mtu, 1500U);
  EXPECT_TRUE(all[0].present && all[0].up && all[0].running);
  here("ip link set up0 mtu 1300");
  ASSERT_TRUE(until([&] { return interface_changes_ == 1; }));
  EXPECT_EQ(follower_->interfaces()[0].mtu, 1300U);
  here("ip link del up1");
  ASSERT_TRUE(until([&] { return !follower_->interfaces()[1].present; }));
  here("ip link add up1 type veth peer name other");
  ASSERT_TRUE(until([&] { return follower_->interfaces()[1].present; }));
  EXPECT_FALSE(follower_->interfaces()[1].up);
}

TEST_F(neighbours, after_an_overrun_everything_is_read_anew) {
  follower_->set_addresses({address("10.9.1.1"), address("10.0.1.11")});
  ASSERT_TRUE(until_state("10.9.1.1", resolution::resolved));
  // More notifications than the socket holds while nobody reads; the change that matters is
  // among those that are lost.
  here(
      "for i in $(seq 0 32767); do echo route add 10.$((100 + i / 256 % 128)).$((i % 256)).0/24 "
      "via 10.0.1.1; done | ip -batch - && "
      "ip route replace 10.9.0.0/16 via 10.0.2.1");
  ASSERT_TRUE(until([&] { return at("10.9.1.1").port == "port1"; }));
  EXPECT_GE(follower_->counters().overruns, 1U);
}

TEST_F(neighbours, ten_thousand_addresses_behind_one_gateway) {
  std::vector<ip_address> addresses;
  for (int i = 0; i < 10000; ++i)
    addresses.push_back(
        ip_address::v4({10, 9, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}));
  auto begin = event_loop::now();
  follower_->set_addresses(addresses);
  const double looked_up = ms_since(begin);
  const auto all_at = [&](const char* port) {
    const auto all = follower_->snapshot();
    return std::all_of(all.begin(), all.end(), [&](const next_hop& h) {
      return h.state == resolution::resolved && h.port == port;
    });
  };
  ASSERT_TRUE(until([&] { return all_at("port0"); }));
  begin = event_loop::now();
  here("ip route replace 10.9.0.0/16 via 10.0.2.1");
  ASSERT_TRUE(until([&] { return all_at("port1"); }));
  std::printf("10000 addresses looked up in %.0f ms; all follow a changed route in %.0f ms\n",
              looked_up, ms_since(begin));
  EXPECT_EQ(follower_->counters().solicitations, 2U);
  follower_->set_addresses({});
  EXPECT_TRUE(follower_->snapshot().empty());
  EXPECT_LE(loop_->timers(), 2U);
}

}  // namespace
}  // namespace sluice::neighbour
