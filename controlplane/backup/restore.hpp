// SPDX-License-Identifier: Apache-2.0
// Getting a state, or a whole state file, back out of backups. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/backup/directory.hpp"

namespace sluice::backup {

// target: what to go back to; neither: the newest revision.
struct target {
  std::optional<revision_number> revision;
  std::optional<std::int64_t> at_ms;  // the newest revision that is not younger
};

struct found_state {
  std::string text;  // a services.yaml
  revision_number revision{};
  std::int64_t time_ms{};
  revision_number newest{};  // of the chain
  std::string node;
  std::string backup;  // the last one that was read
  std::size_t backups_read{0};
  std::vector<std::string> notes;  // backups that could have been used, and were damaged
};

// find_state() reads what the target needs, and no more. For the newest revision the
// newest backup has to be whole; for another, any chain that holds it.
[[nodiscard]] result<found_state> find_state(const directory& d, const target& t);

struct rebuilt {
  found_state state;
  std::uint64_t revisions{0};  // in the new file
  std::string kept;            // what was there before, under its new name; empty: nothing
};

// rebuild() makes a state file with the whole history of a chain. Where the target is not
// its newest revision, it becomes one more. What is there is kept under another name.
// Refuses a file that a control plane has open.
[[nodiscard]] result<rebuilt> rebuild(const directory& d, const target& t,
                                      const std::string& state_file, const std::string& author);

}  // namespace sluice::backup
