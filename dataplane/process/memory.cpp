// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr const char* directory_of_sizes = "/sys/kernel/mm/hugepages";
constexpr std::uint64_t usual_page = std::uint64_t{2} << 20;
constexpr const char* pages_2m = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

std::uint64_t number_in(const fs::path& path) {
  std::ifstream file{path};
  std::uint64_t value = 0;
  file >> value;
  return file ? value : 0;
}

bool write_number(const char* path, std::uint64_t value) {
  std::ofstream file{path};
  file << value << std::flush;
  return static_cast<bool>(file);
}

std::string mib(std::uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20);
}

std::uint64_t free_bytes(const std::vector<hugepage_size>& pages) {
  return std::accumulate(
      pages.begin(), pages.end(), std::uint64_t{0},
      [](std::uint64_t sum, const hugepage_size& p) { return sum + p.bytes * p.free; });
}

}  // namespace

tl::expected<memory_plan, std::string> choose_memory(hugepage_mode mode,
                                                     const std::vector<hugepage_size>& pages,
                                                     std::uint64_t needed, std::uint64_t in_mib) {
  const std::uint64_t want = in_mib != 0 ? in_mib << 20 : needed;
  const std::uint64_t have = free_bytes(pages);
  memory_plan plan;
  if (mode != hugepage_mode::off && have >= want) {
    plan.huge = true;
    plan.mib = in_mib;
    plan.text = mib(want) + " MiB in hugepages (" + mib(have) + " MiB were free)";
    return plan;
  }
  if (mode == hugepage_mode::on)
    return tl::unexpected{"hugepages: on: " + mib(want) + " MiB are needed, " + mib(have) +
                          " MiB are free; echo " + mib((want + 1) / 2) + " > " + pages_2m +
                          ", or set hugepages: auto"};
  plan.mib = in_mib != 0 ? in_mib : (want >> 20) + 1;
  plan.text = mib(plan.mib << 20) + " MiB without hugepages (" +
              (mode == hugepage_mode::off ? std::string{"hugepages: off"}
                                          : "only " + mib(have) + " MiB of hugepages are free") +
              "): slower, fine for trying out";
  return plan;
}

std::vector<hugepage_size> read_hugepages() {
  std::vector<hugepage_size> out;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator{directory_of_sizes, error}) {
    // hugepages-2048kB
    const std::string name = entry.path().filename();
    std::uint64_t kib = 0;
    constexpr std::size_t at = sizeof "hugepages-" - 1;
    if (name.size() <= at) continue;
    std::from_chars(name.data() + at, name.data() + name.size(), kib);
    // What somebody has reserved but not yet touched is not free.
    const std::uint64_t free = number_in(entry.path() / "free_hugepages");
    const std::uint64_t reserved = number_in(entry.path() / "resv_hugepages");
    if (kib != 0) out.push_back({kib << 10, free - std::min(free, reserved)});
  }
  return out;
}

tl::expected<memory_plan, std::string> plan_memory(hugepage_mode mode, std::uint64_t needed,
                                                   std::uint64_t in_mib, bool change) {
  std::vector<hugepage_size> pages = read_hugepages();
  const std::uint64_t want = in_mib != 0 ? in_mib << 20 : needed;
  std::string raised;
  if (const std::uint64_t have = free_bytes(pages);
      change && mode != hugepage_mode::off && have < want) {
    const std::uint64_t before = number_in(pages_2m);
    const std::uint64_t more = (want - have + usual_page - 1) / usual_page;
    if (write_number(pages_2m, before + more)) {
      pages = read_hugepages();
      if (free_bytes(pages) >= want) {
        raised = "; the number of 2 MB pages was raised from " + std::to_string(before) + " to " +
                 std::to_string(before + more);
      } else {
        write_number(pages_2m, before);
        pages = read_hugepages();
      }
    }
  }
  auto plan = choose_memory(mode, pages, needed, in_mib);
  if (plan) plan->text += raised;
  return plan;
}

std::string hugetlbfs_directory() {
  std::ifstream mounts{"/proc/mounts"};
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields{line};
    std::string device, directory, type, options;
    fields >> device >> directory >> type >> options;
    if (type == "hugetlbfs" && options.find("pagesize=2M") != std::string::npos &&
        ::access(directory.c_str(), W_OK) == 0)
      return directory;
  }
  return {};
}

}  // namespace sluice
