// SPDX-License-Identifier: Apache-2.0
// Next hops from node.yaml. What the kernel says is tested with the follower itself and, with
// real routes, end to end.
#include "controlplane/reconcile/next_hops.hpp"

#include <gtest/gtest.h>

#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::reconcile {
namespace {

using test::v4;

node_config node_with(std::vector<port_config> ports) {
  node_config node;
  node.dataplane.ports = std::move(ports);
  return node;
}

port_config port(const char* name, std::optional<mac_address> next_hop) {
  port_config p;
  p.name = name;
  p.device = "net_null0";
  p.next_hop = next_hop;
  return p;
}

TEST(next_hops, the_configured_one_serves_every_backend) {
  event_loop loop;
  const mac_address gateway{2, 0, 0, 0, 0, 1};
  const node_config node = node_with({port("a", std::nullopt), port("b", gateway)});
  next_hops hops{loop, node, [](const auto&) {}};
  hops.set_addresses({v4(192, 0, 2, 1)});
  for (const auto mode : {model::forward_mode::ipip, model::forward_mode::dsr_l2}) {
    const route way = hops.find(v4(192, 0, 2, 1), mode);
    ASSERT_TRUE(way.hop);
    EXPECT_EQ(way.hop->mac, gateway);
    EXPECT_EQ(way.hop->port, 1);
    EXPECT_EQ(way.state, "static");
    EXPECT_EQ(way.port, "b");
  }
}

TEST(next_hops, without_one_and_without_a_route_there_is_none) {
  event_loop loop;
  const node_config node = node_with({port("a", std::nullopt)});
  next_hops hops{loop, node, [](const auto&) {}};
  hops.set_addresses({v4(192, 0, 2, 1)});
  const route way = hops.find(v4(192, 0, 2, 1), model::forward_mode::ipip);
  EXPECT_FALSE(way.hop);
  EXPECT_EQ(way.state, "no-route");
  EXPECT_FALSE(way.reason.empty());
}

TEST(next_hops, probes_go_where_the_kernel_sends_too) {
  event_loop loop;
  const mac_address gateway{2, 0, 0, 0, 0, 1};
  port_config xdp = port("a", gateway);
  xdp.kind = device_kind::af_xdp;
  xdp.interface = "eth9";
  port_config pci = port("a", gateway);
  pci.kind = device_kind::pci;
  port_config twin = port("a", gateway);
  twin.twin = true;
  const std::pair<port_config, const char*> ports[] = {
      {xdp, "eth9"}, {pci, "sl-a"}, {twin, "sl-a"}, {port("a", gateway), nullptr}};
  for (const auto& [p, interface] : ports) {
    const node_config node = node_with({p});
    next_hops hops{loop, node, [](const auto&) {}};
    hops.set_addresses({v4(192, 0, 2, 1)});
    const auto way = hops.probe_way_to(v4(192, 0, 2, 1), model::forward_mode::ipip);
    ASSERT_EQ(way.has_value(), interface != nullptr);
    if (!way) continue;
    EXPECT_EQ(way->interface, interface);
    EXPECT_EQ(way->mac, gateway);
  }
}

}  // namespace
}  // namespace sluice::reconcile
