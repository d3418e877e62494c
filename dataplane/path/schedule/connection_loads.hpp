// SPDX-License-Identifier: Apache-2.0
// connection_loads: how many connections a backend has, over all workers.
//
// This worker's own are exact: opened less closed, as counted. Those of the others are read
// between bursts, a few rows at a time, and only for services that ask: the sum may be some
// milliseconds old, and a thousand members times sixteen workers some tens of them.
//
// A row's counters outlive its backend; the sums at the hand-over are in the backend_cold,
// for the observation segment that it names.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/worker_state.hpp"
#include "dataplane/path/service_state.hpp"

namespace sluice {

class connection_loads {
 public:
  // own: this worker's counters; others: the first row of each other worker's, of as many
  // rows. instance: of the observation segment, 0: unknown.
  // lint: cold begin
  connection_loads(const abi::backend_counters* own, std::uint32_t rows,
                   std::span<const abi::backend_counters* const> others, std::uint64_t instance,
                   std::uint32_t services)
      : own_{own},
        rows_{rows},
        others_{others},
        instance_{instance},
        services_{services},
        elsewhere_{new std::int32_t[rows]{}},
        watched_{new abi::service_id[services]{}} {}
  // lint: cold end

  // of() is a backend's number of open connections. Any index.
  [[nodiscard]] std::uint32_t of(std::uint32_t index) const noexcept {
    if (index >= rows_) return 0;
    const std::int64_t n = tracked(own_[index]) + elsewhere_[index];
    return n < 0 ? 0 : static_cast<std::uint32_t>(n);
  }

  // watch() has a service's members counted from now on.
  void watch(abi::service_id id, service_state& state) noexcept {
    if (state.loads_watched || watched_count_ == services_) return;
    state.loads_watched = true;
    watched_[watched_count_++] = id;
  }

  // refresh() reads some of the counters of other workers; between bursts.
  void refresh(const abi::config_view& view, std::span<service_state> states) noexcept;

 private:
  static std::int64_t tracked(const abi::backend_counters& c) noexcept {
    return static_cast<std::int64_t>(c.opened.read() - c.closed.read());
  }
  void refresh_row(const abi::config_view& view, abi::backend_ref ref) noexcept;

  const abi::backend_counters* own_;
  std::uint32_t rows_;
  std::span<const abi::backend_counters* const> others_;
  std::uint64_t instance_;
  std::uint32_t services_;
  std::unique_ptr<std::int32_t[]> elsewhere_;
  std::unique_ptr<abi::service_id[]> watched_;
  std::uint32_t watched_count_{0};
  std::uint32_t at_service_{0};  // place in watched_
  std::uint32_t at_member_{0};
};

}  // namespace sluice
