// SPDX-License-Identifier: Apache-2.0
// The CPUs of this machine, as far as placing workers is concerned. Start-up only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

// hwloc's handle, so that users of the plan need not include hwloc.
struct hwloc_topology;

namespace sluice::placement {

struct cpu {
  unsigned number{};     // as Linux counts
  unsigned core{};       // CPUs with the same core are SMT siblings
  int numa_node{-1};     // as Linux counts; -1: unknown
  bool isolated{false};  // kept free of other work by isolcpus=
};

// topology: the CPUs that this process may use, by number.
struct topology {
  std::vector<cpu> cpus;

  [[nodiscard]] const cpu* find(unsigned number) const noexcept;
};

// read_topology() asks hwloc about this machine. CPUs outside this process's cpuset or
// affinity are left out, but isolated ones stay in: nobody's affinity has these unless
// it asks for them.
[[nodiscard]] tl::expected<topology, std::string> read_topology();

// from_hwloc() converts a loaded topology (also a synthetic one). isolated: a CPU list.
[[nodiscard]] topology from_hwloc(hwloc_topology* loaded, const std::vector<unsigned>& isolated);

// parse_cpu_list() reads the kernel's form, "0-3,8"; what cannot be read is left out.
[[nodiscard]] std::vector<unsigned> parse_cpu_list(std::string_view text);
// format_cpu_list() writes that form from numbers in ascending order.
[[nodiscard]] std::string format_cpu_list(const std::vector<unsigned>& cpus);

}  // namespace sluice::placement
