// SPDX-License-Identifier: Apache-2.0
// Which CPU each worker runs on, and why. A pure function of the machine, the ports and
// the operator's wish: tested with synthetic machines.
//
// The rules, for `workers: auto`:
// - The home node is the NUMA node that most ports are on. A port that does not tell
//   (any virtual one) has no vote; without votes it is the node with the most cores.
// - One worker per core of the home node; never two on the SMT siblings of one core.
// - The first core of the node is left to Linux (interrupts, SSH, health checks), if the
//   node has more than one. Where isolcpus= keeps CPUs of the node free, exactly these
//   are used: the operator has said what Linux gets.
// `workers: N` goes on to the cores of other nodes, and takes the first cores last; more
// than there are cores is refused. A CPU list is taken as it is.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/placement/topology.hpp"

namespace sluice::placement {

struct port_place {
  std::string name;
  int numa_node{-1};  // -1: unknown
};

struct worker_place {
  unsigned cpu{};
  int numa_node{-1};
  std::string reason;  // at most 63 characters
};

struct worker_plan {
  std::vector<worker_place> workers;  // at least one
  std::vector<unsigned> others;       // for Linux and housekeeping: ascending, never empty
  std::vector<std::string> notes;     // what the operator should know
};

// plan_workers() fails with a text for the operator when the wish cannot be met.
[[nodiscard]] tl::expected<worker_plan, std::string> plan_workers(const topology& machine,
                                                                  std::span<const port_place> ports,
                                                                  const workers_config& wish);

// drop_workers() keeps the first `count` workers of a plan: the ports cannot serve more.
void drop_workers(worker_plan& plan, const topology& machine, std::size_t count);

}  // namespace sluice::placement
