// SPDX-License-Identifier: Apache-2.0
// Reading the files that people write: configuration, lists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <tl/expected.hpp>

namespace sluice {

enum class file_kinds : std::uint8_t {
  readable,  // a pipe or /dev/stdin, too; waits for its writer
  regular,   // nothing that could make the reader wait
};

// read_whole_file() returns a file's content, at most `most_bytes`, or what is wrong with it.
// Any thread may call it.
[[nodiscard]] tl::expected<std::string, std::string> read_whole_file(const std::string& path,
                                                                     std::size_t most_bytes,
                                                                     file_kinds accepted);

}  // namespace sluice
