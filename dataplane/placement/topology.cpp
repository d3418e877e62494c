// SPDX-License-Identifier: Apache-2.0
#include "dataplane/placement/topology.hpp"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>

namespace sluice::placement {
namespace {

// process_affinity() returns the CPUs that the scheduler may put this process on; empty
// when the kernel does not tell.
std::vector<unsigned> process_affinity() {
  constexpr std::size_t most = 4096;
  cpu_set_t* set = CPU_ALLOC(most);
  if (set == nullptr) return {};
  std::vector<unsigned> cpus;
  if (::sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0)
    for (unsigned i = 0; i < most; ++i)
      if (CPU_ISSET_S(i, CPU_ALLOC_SIZE(most), set)) cpus.push_back(i);
  CPU_FREE(set);
  return cpus;
}

std::string first_line(const char* path) {
  std::ifstream file{path};
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

const cpu* topology::find(unsigned number) const noexcept {
  const auto it = std::ranges::find(cpus, number, &cpu::number);
  return it == cpus.end() ? nullptr : &*it;
}

topology from_hwloc(hwloc_topology* loaded, const std::vector<unsigned>& isolated) {
  topology out;
  const int count = hwloc_get_nbobjs_by_type(loaded, HWLOC_OBJ_PU);
  for (int i = 0; i < count; ++i) {
    const hwloc_obj_t pu = hwloc_get_obj_by_type(loaded, HWLOC_OBJ_PU, static_cast<unsigned>(i));
    const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(loaded, HWLOC_OBJ_CORE, pu);
    cpu c;
    c.number = pu->os_index;
    // A machine (or container) that hides its cores: every CPU counts as one.
    c.core = core != nullptr ? core->logical_index : pu->logical_index;
    const int node = hwloc_bitmap_first(pu->nodeset);
    if (node >= 0) c.numa_node = node;
    c.isolated = std::ranges::find(isolated, c.number) != isolated.end();
    out.cpus.push_back(c);
  }
  std::ranges::sort(out.cpus, {}, &cpu::number);
  return out;
}

tl::expected<topology, std::string> read_topology() {
  hwloc_topology_t loaded = nullptr;
  if (hwloc_topology_init(&loaded) != 0 || hwloc_topology_load(loaded) != 0) {
    const std::string why = std::strerror(errno);
    if (loaded != nullptr) hwloc_topology_destroy(loaded);
    return tl::unexpected{"cannot read the machine's topology: " + why};
  }
  const std::vector<unsigned> isolated =
      parse_cpu_list(first_line("/sys/devices/system/cpu/isolated"));
  topology out = from_hwloc(loaded, isolated);
  hwloc_topology_destroy(loaded);
  if (const std::vector<unsigned> may = process_affinity(); !may.empty())
    std::erase_if(out.cpus, [&may](const cpu& c) {
      return !c.isolated && std::ranges::find(may, c.number) == may.end();
    });
  if (out.cpus.empty()) return tl::unexpected{std::string{"no CPU may be used by this process"}};
  return out;
}

std::vector<unsigned> parse_cpu_list(std::string_view text) {
  std::vector<unsigned> cpus;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    unsigned first = 0;
    const char* end = item.data() + item.size();
    auto read = std::from_chars(item.data(), end, first);
    if (read.ec != std::errc{}) continue;
    unsigned last = first;
    if (read.ptr != end && *read.ptr == '-') std::from_chars(read.ptr + 1, end, last);
    for (unsigned i = first; i <= last && last - first < 4096; ++i) cpus.push_back(i);
  }
  return cpus;
}

std::string format_cpu_list(const std::vector<unsigned>& cpus) {
  std::string out;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!out.empty()) out += ',';
    out += std::to_string(cpus[i]);
    if (last > i) out += '-' + std::to_string(cpus[last]);
    i = last + 1;
  }
  return out;
}

}  // namespace sluice::placement
