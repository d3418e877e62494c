// SPDX-License-Identifier: Apache-2.0
// list_keeper: the content of the allow and deny lists in use. Files are read when a change
// brings them, and again when they have changed since (refresh()). A list that cannot be read
// any more stays as it was; one that could not be read at the start holds nobody: an allow
// list then lets nobody in, a deny list keeps nobody out, and problems() says so.
//
// prepare(): any thread. The rest: the loop's.
#pragma once

#include <chrono>
#include <cstdint>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/lists/prefix_file.hpp"
#include "controlplane/model/model.hpp"

namespace sluice::reconcile {

class list_keeper {
 public:
  list_keeper() = default;
  list_keeper(const list_keeper&) = delete;
  list_keeper& operator=(const list_keeper&) = delete;

  // prepare() reads the lists of a state that are not known yet. What is wrong in a file is
  // an error with its line.
  [[nodiscard]] lists::result<void> prepare(const model::desired_state& state);
  // find() returns a list's content; null: the set is not given.
  [[nodiscard]] lists::shared_ranges find(const model::prefix_set& set);
  // keep_only() forgets the lists that a state does not have.
  void keep_only(const model::desired_state& state);
  // refresh() looks whether files have changed, has them read on a thread of its own, and
  // tells, once they are read, that find() has something new. To be called now and then.
  [[nodiscard]] bool refresh();
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  // What tells one content of a file from another.
  struct stamp {
    std::uint64_t device{}, inode{}, size{}, changed_ns{};
    bool operator==(const stamp&) const = default;
  };
  struct entry {
    lists::shared_ranges content;
    stamp seen;
    std::string problem;
  };
  struct order {
    bool operator()(const model::prefix_set& a, const model::prefix_set& b) const {
      return std::tie(a.file, a.prefixes) < std::tie(b.file, b.prefixes);
    }
  };
  struct reading {
    model::prefix_set set;
    stamp seen;
    lists::result<lists::shared_ranges> content;
  };
  static stamp stamp_of(const std::string& path);
  static reading read(const model::prefix_set& set);

  mutable std::mutex mutex_;
  std::map<model::prefix_set, entry, order> entries_;  // guarded by mutex_
  std::future<std::vector<reading>> pending_;          // of refresh()
};

}  // namespace sluice::reconcile
