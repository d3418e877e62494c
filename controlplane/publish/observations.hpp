// SPDX-License-Identifier: Apache-2.0
// observation_follower: finds the data plane's observation segment, notices when another
// data plane has taken over, and answers the writer's questions about readers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "controlplane/publish/reader_watch.hpp"
#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/worker_state.hpp"

namespace sluice::publish {

// observations: one attached segment, checked. Immutable; any thread may read through it.
class observations {
 public:
  // attach() is null, with a reason, when there is no segment of this layout.
  [[nodiscard]] static std::shared_ptr<const observations> attach(const std::string& path,
                                                                  std::string& error);

  [[nodiscard]] const abi::observation_map<const std::byte>& map() const noexcept { return map_; }
  [[nodiscard]] std::uint32_t workers() const noexcept { return map_.layout().worker_count; }
  [[nodiscard]] std::uint64_t instance() const noexcept { return instance_; }
  [[nodiscard]] std::uint64_t inode() const noexcept { return file_.inode(); }
  // alive() tells whether its data plane still runs (holds the lock).
  [[nodiscard]] bool alive() const noexcept { return abi::is_locked(file_.fd()); }

  // Sums over all workers; zero for rows that the segment does not have.
  [[nodiscard]] counter_sums service_sums(std::uint32_t row) const noexcept;
  [[nodiscard]] counter_sums backend_sums(std::uint32_t row) const noexcept;
  [[nodiscard]] std::uint64_t sum(abi::counter_id id) const noexcept;

 private:
  observations(abi::mapped_file file, const abi::observation_layout& layout,
               std::uint64_t instance);
  abi::mapped_file file_;
  abi::observation_map<const std::byte> map_;
  std::uint64_t instance_;
};

// tracked() is how many connections a backend has, from its counters and what they were when it
// was given its row.
[[nodiscard]] constexpr std::uint64_t tracked(const counter_sums& sums,
                                              const counter_sums& base) noexcept {
  const std::uint64_t opened = sums[2] - std::min(base[2], sums[2]);
  const std::uint64_t closed = sums[3] - std::min(base[3], sums[3]);
  return opened > closed ? opened - closed : 0;
}

// observation_follower: refresh() and what reader_watch has: the writer's thread.
// current(), last_error(): any thread.
class observation_follower final : public reader_watch {
 public:
  explicit observation_follower(std::string path) : path_{std::move(path)} {}

  // refresh() looks at the file; true when another segment was attached than before.
  bool refresh();
  // current() is the newest segment, of a living data plane or of the last one; null:
  // none was ever seen.
  [[nodiscard]] std::shared_ptr<const observations> current() const;
  // last_error() says why there is a file that could not be attached; empty: there is not.
  [[nodiscard]] std::string last_error() const;

  // Counts readers of every data plane that is alive: one whose file was replaced may
  // not have gone yet.
  [[nodiscard]] bool quiescent(std::uint64_t number) override;
  [[nodiscard]] std::uint64_t instance() const override;
  [[nodiscard]] counter_sums service_sums(std::uint32_t row) const override;
  [[nodiscard]] counter_sums backend_sums(std::uint32_t row) const override;

 private:
  std::string path_;
  std::vector<std::shared_ptr<const observations>> older_;  // replaced, perhaps still alive
  bool unreadable_{false};  // there is a file that we could not look into
  mutable std::mutex mutex_;
  std::shared_ptr<const observations> current_;  // guarded by mutex_
  std::string error_;                            // guarded by mutex_
};

}  // namespace sluice::publish
