// SPDX-License-Identifier: Apache-2.0
// Hugepages or not. Start-up only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/node_file.hpp"

namespace sluice {

struct hugepage_size {
  std::uint64_t bytes{};  // of one page
  std::uint64_t free{};   // pages
};

struct memory_plan {
  bool huge{false};
  std::uint64_t mib{0};  // for EAL's -m; 0: as it is needed
  std::string text;      // for the log: what was chosen, and why
};

// choose_memory() is the decision alone. pages: what there is, after an attempt to have
// enough. needed: bytes. in_mib: as asked for in node.yaml, 0: computed.
[[nodiscard]] tl::expected<memory_plan, std::string> choose_memory(
    hugepage_mode mode, const std::vector<hugepage_size>& pages, std::uint64_t needed,
    std::uint64_t in_mib);

// read_hugepages() asks the kernel, for all sizes it has.
[[nodiscard]] std::vector<hugepage_size> read_hugepages();

// plan_memory() is choose_memory() for this machine. May raise the number of 2 MB pages
// when there are too few and change is true; takes that back if the kernel cannot.
[[nodiscard]] tl::expected<memory_plan, std::string> plan_memory(hugepage_mode mode,
                                                                 std::uint64_t needed,
                                                                 std::uint64_t in_mib, bool change);

// hugetlbfs_directory() returns a mounted hugetlbfs of 2 MB pages that may be written
// to, or "".
[[nodiscard]] std::string hugetlbfs_directory();

}  // namespace sluice
