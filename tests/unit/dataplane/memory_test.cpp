// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dataplane/process/eal.hpp"

namespace sluice {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr std::uint64_t mib = 1 << 20;

struct memory_row {
  const char* description;
  hugepage_mode mode;
  std::vector<hugepage_size> pages;
  std::uint64_t needed_mib;
  std::uint64_t in_mib;
  bool ok;
  bool huge;
  std::uint64_t mib;
};

TEST(memory, hugepages_or_not) {
  const std::vector<memory_row> rows{
      {"auto, enough", hugepage_mode::automatic, {{2 * mib, 50}}, 100, 0, true, true, 0},
      {"auto, two sizes",
       hugepage_mode::automatic,
       {{2 * mib, 10}, {1024 * mib, 1}},
       100,
       0,
       true,
       true,
       0},
      {"auto, one page short", hugepage_mode::automatic, {{2 * mib, 49}}, 100, 0, true, false, 101},
      {"auto, none", hugepage_mode::automatic, {}, 100, 0, true, false, 101},
      {"auto, asked for more",
       hugepage_mode::automatic,
       {{2 * mib, 50}},
       100,
       200,
       true,
       false,
       200},
      {"auto, asked for less", hugepage_mode::automatic, {{2 * mib, 50}}, 200, 80, true, true, 80},
      {"on, enough", hugepage_mode::on, {{2 * mib, 50}}, 100, 0, true, true, 0},
      {"on, too few", hugepage_mode::on, {{2 * mib, 49}}, 100, 0, false, false, 0},
      {"off, though there are", hugepage_mode::off, {{2 * mib, 500}}, 100, 0, true, false, 101},
  };
  for (const memory_row& row : rows) {
    SCOPED_TRACE(row.description);
    const auto plan = choose_memory(row.mode, row.pages, row.needed_mib * mib, row.in_mib);
    ASSERT_EQ(plan.has_value(), row.ok);
    if (!row.ok) {
      EXPECT_THAT(plan.error(), HasSubstr("hugepages: on: 100 MiB are needed, 98 MiB are free"));
      continue;
    }
    EXPECT_EQ(plan->huge, row.huge);
    EXPECT_EQ(plan->mib, row.mib);
    EXPECT_FALSE(plan->text.empty());
  }
}

TEST(eal_arguments, workers_memory_and_devices) {
  node_config node;
  node.runtime_dir = "/run/sluice";
  node.dataplane.eal_args = {"--log-level=debug"};
  placement::worker_plan places;
  places.workers = {{3, 0, ""}, {5, 0, ""}};
  places.others = {0, 1, 2};
  port_config config;
  config.kind = device_kind::vdev;
  std::vector<device_plan> devices(1);
  devices[0].config = &config;
  devices[0].parts = {{"net_null0", "net_null0"}};
  auto args = eal_arguments(node, places, devices, {true, 0, ""});
  EXPECT_THAT(args, Contains("--lcores=0@(0-2),1@3,2@5"));
  EXPECT_THAT(args, Contains("--in-memory"));
  EXPECT_THAT(args, Contains("--no-pci"));
  EXPECT_THAT(args, Not(Contains("-m")));
  EXPECT_EQ(args.back(), "--log-level=debug");

  config.kind = device_kind::pci;
  devices[0].parts = {{"0000:03:00.0", "0000:03:00.0,x=1"}};
  args = eal_arguments(node, places, devices, {false, 64, ""});
  EXPECT_THAT(args, Contains("--no-huge"));
  EXPECT_THAT(args, Not(Contains("--in-memory")));  // EAL refuses the two together
  EXPECT_THAT(args, Contains("64"));
  EXPECT_THAT(args, Contains("0000:03:00.0,x=1"));
  EXPECT_THAT(args, Not(Contains("--no-pci")));
}

TEST(eal_arguments, the_prefix_is_the_directorys_own) {
  EXPECT_NE(runtime_prefix("/run/a"), runtime_prefix("/run/b"));
  EXPECT_EQ(runtime_prefix("/run/a"), runtime_prefix("/run/a"));
}

}  // namespace
}  // namespace sluice
