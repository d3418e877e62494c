// SPDX-License-Identifier: Apache-2.0
// admin_log: who drained or forced a backend, when and why: the revision that did it. Taken from
// the history after a restart, as far back as that is looked at. Loop thread, but for restore().
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "controlplane/model/model.hpp"
#include "controlplane/reconcile/state_keeper.hpp"

namespace sluice::reconcile {

class admin_log {
 public:
  struct entry {
    store::revision_number revision{};
    std::chrono::system_clock::time_point time;
    std::string author;
    std::string reason;
  };
  // By service and backend; of those that are not simply enabled.
  using entries = std::map<std::pair<std::string, ip_address>, entry>;

  // restore() looks into the history for those of `latest`. Before the loop runs.
  void restore(state_keeper& keeper, const model::desired_state& latest);
  // note() follows one change; `by` is its revision.
  void note(const model::desired_state& before, const model::desired_state& after, const entry& by);
  [[nodiscard]] const entries& all() const noexcept { return entries_; }

  // concerns() tells whether note() would enter something.
  [[nodiscard]] static bool concerns(const model::desired_state& before,
                                     const model::desired_state& after);

 private:
  entries entries_;
};

}  // namespace sluice::reconcile
