// SPDX-License-Identifier: Apache-2.0
// Placement on machines that we do not have, from hwloc's synthetic topologies.
#include "dataplane/placement/plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwloc.h>

namespace sluice::placement {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

topology synthetic(const char* description, const std::vector<unsigned>& isolated = {}) {
  hwloc_topology_t loaded = nullptr;
  EXPECT_EQ(hwloc_topology_init(&loaded), 0);
  EXPECT_EQ(hwloc_topology_set_synthetic(loaded, description), 0);
  EXPECT_EQ(hwloc_topology_load(loaded), 0);
  topology out = from_hwloc(loaded, isolated);
  hwloc_topology_destroy(loaded);
  return out;
}

// CPU n is thread n % 2 of core n / 2; socket 0 has CPUs 0-15, socket 1 has 16-31.
constexpr const char* two_sockets = "numa:2 core:8 pu:2";

std::vector<unsigned> cpus(const worker_plan& plan) {
  std::vector<unsigned> out;
  for (const worker_place& w : plan.workers) out.push_back(w.cpu);
  return out;
}

workers_config automatic() {
  return {};
}
workers_config count(unsigned n) {
  return {worker_selection::count, n, {}};
}
workers_config list(std::vector<unsigned> l) {
  return {worker_selection::list, 0, std::move(l)};
}

TEST(placement, auto_takes_the_nics_node_without_its_first_core) {
  const port_place up{"up0", 1};
  const auto plan = plan_workers(synthetic(two_sockets), {&up, 1}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(18, 20, 22, 24, 26, 28, 30));
  for (const worker_place& w : plan->workers) {
    EXPECT_EQ(w.numa_node, 1);
    EXPECT_THAT(w.reason, HasSubstr("node 1 of port up0"));
    EXPECT_LE(w.reason.size(), 63u);
  }
  // Housekeeping stays off the siblings of the workers' cores.
  EXPECT_EQ(format_cpu_list(plan->others), "0-17");
  EXPECT_TRUE(plan->notes.empty());
}

TEST(placement, auto_on_two_cores_is_one_worker) {
  const auto plan = plan_workers(synthetic("numa:1 core:2 pu:1"), {}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(1));
  EXPECT_THAT(plan->others, ElementsAre(0));
}

TEST(placement, auto_on_one_core_shares_it) {
  const auto plan = plan_workers(synthetic("numa:1 core:1 pu:1"), {}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(0));
  EXPECT_THAT(plan->others, ElementsAre(0));
  EXPECT_THAT(plan->notes, ElementsAre(HasSubstr("no CPU is left to Linux")));
}

TEST(placement, auto_never_uses_both_siblings) {
  const auto plan = plan_workers(synthetic("numa:1 core:2 pu:2"), {}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(2));
  EXPECT_EQ(format_cpu_list(plan->others), "0-1");
}

TEST(placement, auto_takes_exactly_the_isolated_cpus_of_the_node) {
  const port_place up{"up0", 1};
  const auto plan =
      plan_workers(synthetic(two_sockets, {2, 4, 20, 21, 22, 23}), {&up, 1}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(20, 22));
  EXPECT_THAT(plan->workers[0].reason, HasSubstr("isolated"));
  EXPECT_EQ(format_cpu_list(plan->others), "0-1,3,5-19,24-31");
}

TEST(placement, a_count_goes_on_to_the_other_node_and_takes_first_cores_last) {
  const port_place up{"up0", 1};
  const auto plan = plan_workers(synthetic(two_sockets), {&up, 1}, count(16));
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(18, 20, 22, 24, 26, 28, 30, 2, 4, 6, 8, 10, 12, 14, 0, 16));
  EXPECT_THAT(plan->workers[7].reason, HasSubstr("home node is full"));
  EXPECT_THAT(plan->workers[14].reason, HasSubstr("shared with Linux"));
}

TEST(placement, more_workers_than_cores_are_refused) {
  const auto plan = plan_workers(synthetic(two_sockets), {}, count(17));
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error(), HasSubstr("there are 16 cores"));
}

TEST(placement, a_list_is_taken_as_it_is_with_what_is_wrong_with_it_said) {
  const port_place up{"up0", 1};
  const auto plan = plan_workers(synthetic(two_sockets), {&up, 1}, list({21, 20, 3}));
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(21, 20, 3));
  EXPECT_THAT(plan->notes,
              ElementsAre(HasSubstr("siblings of one core"), HasSubstr("CPU 3 is on NUMA node 0")));
}

TEST(placement, a_cpu_that_is_not_there_is_refused) {
  const auto plan = plan_workers(synthetic("numa:1 core:2 pu:1"), {}, list({1, 7}));
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error(), "workers: CPU 7 does not exist or may not be used; there are: 0-1");
}

TEST(placement, ports_vote_for_the_node_and_the_minority_is_told) {
  const std::vector<port_place> ports{{"a", 0}, {"b", 1}, {"c", -1}, {"d", 1}};
  const auto plan = plan_workers(synthetic(two_sockets), ports, count(1));
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(18));
  EXPECT_THAT(plan->notes, ElementsAre(HasSubstr("port a is on NUMA node 0")));
}

TEST(placement, dropping_workers_gives_their_cpus_back) {
  const topology machine = synthetic("numa:1 core:4 pu:1");
  auto plan = plan_workers(machine, {}, automatic());
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_THAT(cpus(*plan), ElementsAre(1, 2, 3));
  drop_workers(*plan, machine, 1);
  EXPECT_THAT(cpus(*plan), ElementsAre(1));
  EXPECT_EQ(format_cpu_list(plan->others), "0,2-3");
}

TEST(placement, this_machine_can_be_read) {
  const auto machine = read_topology();
  ASSERT_TRUE(machine) << machine.error();
  EXPECT_FALSE(machine->cpus.empty());
  EXPECT_TRUE(plan_workers(*machine, {}, automatic()));
}

TEST(cpu_list, reads_and_writes_the_kernels_form) {
  EXPECT_THAT(parse_cpu_list("0-2,5,7-8"), ElementsAre(0, 1, 2, 5, 7, 8));
  EXPECT_THAT(parse_cpu_list(""), ElementsAre());
  EXPECT_THAT(parse_cpu_list("x,3"), ElementsAre(3));
  EXPECT_EQ(format_cpu_list({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

}  // namespace
}  // namespace sluice::placement
