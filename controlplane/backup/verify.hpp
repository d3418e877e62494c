// SPDX-License-Identifier: Apache-2.0
// verify(): every byte of every backup in a directory is held to what it should be.
#pragma once

#include <string>
#include <vector>

#include "controlplane/backup/directory.hpp"

namespace sluice::backup {

struct verified {
  std::size_t backups{0};
  std::uint64_t revisions{0};
  std::vector<std::string> problems;  // each names its file
};

// verify() reads all data, follows all links, unpacks all texts. An error: there is no
// such directory.
[[nodiscard]] result<verified> verify(const std::string& path);

}  // namespace sluice::backup
