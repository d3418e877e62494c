// SPDX-License-Identifier: Apache-2.0
// list_keeper: the content of the allow and deny lists in use. Files are read when a change
// brings them, and again when they have changed since (refresh()). A list that cannot be read
// any more, or that does not fit any more, stays as it was, also over a restart; if nobody knows
// how it was, it holds nobody: an allow list then lets nobody in, a deny list keeps nobody out.
// problems() says so.
//
// prepare(): any thread. The rest: the loop's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
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
  // find() returns a list's content; null: the set is not given. before(): what it held when
  // it was last published, or null; asked when its file cannot be read.
  using content_before = std::function<lists::shared_ranges()>;
  [[nodiscard]] lists::shared_ranges find(const model::prefix_set& set,
                                          const content_before& before = {});
  // keep_only() forgets the lists that a state does not have.
  void keep_only(const model::desired_state& state);
  // refresh() looks whether files have changed, has them read on a thread of its own, and
  // tells, once they are read, that find() has something new. To be called now and then.
  [[nodiscard]] bool refresh();
  // undo() takes back what the last refresh() has found. The files are read again when they
  // or the desired state change.
  void undo(const std::string& why);
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
    lists::shared_ranges before;  // the last refresh(); null: it has changed nothing
    bool again{false};            // to be read again when the desired state has changed
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
