// SPDX-License-Identifier: Apache-2.0
// Making backups, copying them to a second directory, and removing old ones. Each writes
// under the directory's lock. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/backup/directory.hpp"

namespace sluice::backup {

// source: the state file, as the owner of it lets it be read. Called several times, so that
// changes need not wait until a backup is written.
struct source {
  std::function<result<store::history_bounds>()> bounds;
  std::function<result<std::vector<store::revision_record>>(revision_number first, std::size_t n)>
      records;
  std::function<result<std::vector<store::verdict>>()> verdicts;
  std::function<result<store::state_store::side_tables>()> side_tables;
};

struct create_options {
  backup_kind kind{backup_kind::full};
  std::string to;
  std::string node;
};

struct created {
  entry made;        // or the newest one, when there was nothing new
  bool fresh{true};  // false: nothing has changed since, and nothing was written
};

// create() refuses a directory with another node's backups, and an incremental or
// differential one that has nothing to build on.
[[nodiscard]] result<created> create(const source& from, const create_options& options);

// copy_missing() copies what `to` does not have yet, oldest first; returns how many.
[[nodiscard]] result<std::size_t> copy_missing(const std::string& from, const std::string& to);

// remove_old() keeps the newest `keep` full backups and all that builds on them; returns
// how many backups were removed.
[[nodiscard]] result<std::size_t> remove_old(const std::string& path, std::size_t keep);

}  // namespace sluice::backup
