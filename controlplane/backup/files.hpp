// SPDX-License-Identifier: Apache-2.0
// Files that are whole and on disk, or not there: written beside their place, synced,
// renamed. Errors name the file. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::backup {

template <class T>
using result = tl::expected<T, std::string>;

inline constexpr std::string_view unfinished_suffix = ".unfinished";

// make_directory() makes it and what is above it, where they are not there yet.
[[nodiscard]] result<void> make_directory(const std::string& path);
// lock_directory() holds a directory for one writer, as long as the descriptor lives.
[[nodiscard]] result<file_descriptor> lock_directory(const std::string& path);
// write_durably() replaces nothing: the file must not be there.
[[nodiscard]] result<void> write_durably(const std::string& path, std::string_view bytes);
[[nodiscard]] result<void> sync_directory(const std::string& path);
[[nodiscard]] result<void> remove_file(const std::string& path);
[[nodiscard]] result<std::string> read_file(const std::string& path, std::uint64_t most_bytes);

}  // namespace sluice::backup
