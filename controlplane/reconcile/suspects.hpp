// SPDX-License-Identifier: Apache-2.0
// suspects: backends that the data plane's counters say something about before a probe does: tcp
// connections are opened, and hardly anything but their first packets follows, or they are reset
// (as far as the data plane sees what backends send). A hint only: they
// are to be probed at once. A fifth of the services is looked at each time, so that 50,000 backends
// hold up nobody; with a look each 100 ms each backend has its turn every half second.
//
// Threading: the loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "controlplane/publish/id_book.hpp"
#include "controlplane/publish/observations.hpp"
#include "controlplane/reconcile/service_runtime.hpp"

namespace sluice::reconcile {

class suspects {
 public:
  using runtime_list = std::vector<std::shared_ptr<const service_runtime>>;

  // forget() is called when services or their backends are others than before.
  void forget() { seen_.clear(); }
  // look() returns which backends (service, position) to probe.
  [[nodiscard]] std::vector<std::pair<std::uint32_t, std::uint32_t>> look(
      const runtime_list& services, const publish::id_book& ids,
      const publish::observations& data_plane);

 private:
  struct sums {
    std::uint64_t packets{};
    std::uint64_t opened{};
    std::uint64_t resets{};
  };
  std::vector<std::vector<std::optional<sums>>> seen_;  // by service and position
  std::uint64_t instance_{0};                           // of the data plane
  std::uint32_t turn_{0};
};

}  // namespace sluice::reconcile
