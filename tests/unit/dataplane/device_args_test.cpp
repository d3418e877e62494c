// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/device_args.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

using testing::HasSubstr;

port_config vdev(std::string name, std::string device) {
  port_config p;
  p.name = std::move(name);
  p.device = std::move(device);
  p.kind = device_kind::vdev;
  return p;
}

TEST(device_args, names_without_a_number_get_one_that_is_free) {
  const std::vector<port_config> ports{vdev("a", "net_null"), vdev("b", "net_null,size=64"),
                                       vdev("c", "net_null0"), vdev("d", "net_ring")};
  const auto plans = plan_devices(ports, "", true);
  ASSERT_TRUE(plans) << plans.error();
  ASSERT_EQ(plans->size(), 4u);
  EXPECT_EQ((*plans)[0].parts[0].arguments, "net_null1");
  EXPECT_EQ((*plans)[1].parts[0].arguments, "net_null2,size=64");
  EXPECT_EQ((*plans)[2].parts[0].arguments, "net_null0");
  EXPECT_EQ((*plans)[3].parts[0].arguments, "net_ring0");
  EXPECT_EQ((*plans)[1].parts[0].name, "net_null2");
  EXPECT_EQ((*plans)[3].numa_node, -1);
}

port_config af_xdp(const std::string& interface) {
  port_config p;
  p.name = "up0";
  p.device = "af_xdp:" + interface;
  p.kind = device_kind::af_xdp;
  p.interface = interface;
  return p;
}

TEST(device_args, af_xdp_on_an_interface) {
  // lo is everywhere, and has no channels.
  const port_config up = af_xdp("lo");
  const auto plans = plan_devices({&up, 1}, "/x/steer.bpf.o", false);
  ASSERT_TRUE(plans) << plans.error();
  const device_plan& plan = plans->front();
  ASSERT_EQ(plan.parts.size(), 1u);
  EXPECT_EQ(plan.parts[0].name, "net_af_xdp0");
  EXPECT_EQ(plan.parts[0].arguments,
            "net_af_xdp0,iface=lo,start_queue=0,queue_count=1,xdp_prog=/x/steer.bpf.o,"
            "busy_budget=0,force_copy=1");
  ASSERT_TRUE(plan.interface);
  EXPECT_EQ(plan.interface->name, "lo");
}

TEST(device_args, what_cannot_be_is_refused_with_the_ports_name) {
  const port_config nowhere = af_xdp("nosuch0");
  auto plans = plan_devices({&nowhere, 1}, "/x/steer.bpf.o", true);
  ASSERT_FALSE(plans);
  EXPECT_THAT(plans.error(), HasSubstr("port up0: there is no network interface nosuch0"));

  const port_config lo = af_xdp("lo");
  plans = plan_devices({&lo, 1}, "", true);
  ASSERT_FALSE(plans);
  EXPECT_THAT(plans.error(), HasSubstr("SLUICE_BPF_DIR"));
  plans = plan_devices({&lo, 1}, "/x,y/steer.bpf.o", true);
  ASSERT_FALSE(plans);
  EXPECT_THAT(plans.error(), HasSubstr("cannot take a path with ,"));

  port_config card = vdev("card", "0000:ff:1f.7");
  card.kind = device_kind::pci;
  plans = plan_devices({&card, 1}, "", true);
  ASSERT_FALSE(plans);
  EXPECT_THAT(plans.error(), HasSubstr("port card: there is no PCI device 0000:ff:1f.7"));
}

TEST(kernel_interface, tells_what_the_kernel_knows) {
  const auto lo = read_interface("lo");
  ASSERT_TRUE(lo);
  EXPECT_GE(lo->index, 1u);
  EXPECT_EQ(lo->rx_queues, 1u);
  EXPECT_EQ(lo->numa_node, -1);
  const auto again = read_interface(lo->index);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->name, "lo");
  EXPECT_FALSE(read_interface("nosuch0"));
  EXPECT_FALSE(read_interface(0u));
}

}  // namespace
}  // namespace sluice
