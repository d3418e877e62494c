// SPDX-License-Identifier: Apache-2.0
// line_table: the lines of several files as one count, so that a line number names its file, too.
// Those of the first file are numbered as they are in it.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace sluice::importing {

class line_table {
 public:
  struct place {
    std::string file;
    unsigned line{};  // 0: the file as a whole
  };

  explicit line_table(std::string file_name = {}) { files_.push_back({0, std::move(file_name)}); }

  // add() makes room for a file's lines, after `used` lines of those before; returns what to add to
  // their numbers.
  unsigned add(std::string file_name, unsigned used) {
    files_.push_back({used, std::move(file_name)});
    return used;
  }
  [[nodiscard]] place at(unsigned line) const {
    // The last file that begins before it. The first begins at 0, and is there for line 0.
    const auto after = std::upper_bound(files_.begin() + 1, files_.end(), line,
                                        [](unsigned n, const part& p) { return n <= p.before; });
    return {std::prev(after)->name, line - std::prev(after)->before};
  }
  // words() names a line to somebody who looks at `from`: "line 7", or "other.conf:7".
  [[nodiscard]] std::string words(unsigned line, unsigned from) const {
    const place p = at(line);
    const std::string number = std::to_string(p.line);
    return p.file == at(from).file ? "line " + number : p.file + ":" + number;
  }

 private:
  struct part {
    unsigned before{};  // lines of the files before it
    std::string name;
  };
  std::vector<part> files_;
};

}  // namespace sluice::importing
