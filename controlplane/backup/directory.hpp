// SPDX-License-Identifier: Apache-2.0
// directory: the backups in a directory. A backup is there when its manifest is; the data
// is written first. Reading takes no lock: files are never changed once they are there.
// One thread at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "controlplane/backup/archive.hpp"
#include "controlplane/backup/files.hpp"
#include "controlplane/backup/manifest.hpp"

namespace sluice::backup {

struct entry {
  manifest about;
  digest manifest_sha256{};
};

class directory {
 public:
  // read() lists what is there. Manifests that cannot be read are problems(), each with
  // its file; an error: the directory itself cannot be read.
  [[nodiscard]] static result<directory> read(const std::string& path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // By number, ascending.
  [[nodiscard]] const std::vector<entry>& entries() const noexcept { return entries_; }
  [[nodiscard]] const std::vector<std::string>& problems() const noexcept { return problems_; }
  // last_number() counts the unreadable, too: their names are not used again.
  [[nodiscard]] std::uint64_t last_number() const noexcept { return last_number_; }
  [[nodiscard]] const entry* find(std::string_view name) const noexcept;
  // chain_of() returns the backups that `last` needs, the full one first; an error names
  // the link that is missing or another one.
  [[nodiscard]] result<std::vector<const entry*>> chain_of(const entry& last) const;
  // load() reads the data of a backup and holds it to its manifest.
  [[nodiscard]] result<archive> load(const entry& e) const;
  [[nodiscard]] std::string file_of(const entry& e, std::string_view suffix) const {
    return path_ + "/" + e.about.name() + std::string{suffix};
  }

 private:
  std::string path_;
  std::vector<entry> entries_;
  std::vector<std::string> problems_;
  std::uint64_t last_number_{0};
};

// fits_on() says why `next` cannot follow `parent` in a chain; empty: it can.
[[nodiscard]] std::string misfit(const entry& parent, const entry& next);

}  // namespace sluice::backup
