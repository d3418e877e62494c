// SPDX-License-Identifier: Apache-2.0
// Files of prefixes: one in a line, IPv4 or IPv6, an address alone is a prefix of itself; `#`
// begins a comment; empty lines and spaces around do not matter. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/lists/range_set.hpp"
#include "controlplane/model/options.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::lists {

inline constexpr std::size_t most_prefixes = 1u << 20;  // of one list
inline constexpr std::size_t most_bytes = 64u << 20;    // of one file

template <class T>
using result = tl::expected<T, std::vector<config_error>>;

// parse_prefixes() reads the text of a file. The errors say FILE:LINE, and are bounded.
[[nodiscard]] result<std::vector<ip_prefix>> parse_prefixes(std::string_view text,
                                                            std::string_view file_name);

// load() makes the ranges of a list, whose file is read. Null: the set is not given.
[[nodiscard]] result<shared_ranges> load(const model::prefix_set& set);

}  // namespace sluice::lists
