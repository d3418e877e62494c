// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up and housekeeping only
// Files that a data plane leaves for the next one and that nobody else may read or write:
// how they are opened, and how their mapped memory is placed and made present.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <tl/expected.hpp>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::connection {

// refusal: why a file was not adopted. No text: there is none.
struct refusal {
  std::string text;
};

struct found_file {
  file_descriptor file;
  std::uint64_t size;  // bytes
};

// open_private() opens an existing file for reading and writing. Refused is what is not a
// regular file of this user with no rights for others.
[[nodiscard]] tl::expected<found_file, refusal> open_private(const std::string& path);

// prefer_node() has the pages of a mapping come from a NUMA node, where it has some: to be
// called before they are there. Returns 0 or errno.
int prefer_node(void* at, std::uint64_t size, int node) noexcept;

// populate() makes every page of a writable mapping present; page: bytes. Returns 0 or errno.
int populate(std::byte* at, std::uint64_t size, std::uint64_t page) noexcept;

}  // namespace sluice::connection
