// SPDX-License-Identifier: Apache-2.0
// A keepalived.conf as a tree of statements: words, and what stands between their braces.
// Comments are gone, quotes taken off, $NAME replaced by what the file defines; where it includes
// another, what that one has stands.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/yaml_reader.hpp"
#include "tools/import/import.hpp"
#include "tools/import/lines.hpp"

namespace sluice::importing {

struct statement {
  std::vector<std::string> words;  // at least one
  unsigned line{};                 // of the line table
  std::vector<statement> block;

  // word() is the n-th word, or "".
  [[nodiscard]] std::string_view word(std::size_t n) const noexcept {
    return n < words.size() ? std::string_view{words[n]} : std::string_view{};
  }
};

// unread: an include that was not followed, and why.
struct unread {
  unsigned line{};
  std::string key;
  std::string why;
};

struct statements {
  std::vector<statement> top;
  line_table lines;
  std::vector<unread> left_out;
};

[[nodiscard]] tl::expected<statements, config_error> read_statements(std::string_view text,
                                                                     std::string_view file_name,
                                                                     const include_reader& include);

}  // namespace sluice::importing
