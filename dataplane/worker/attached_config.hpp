// SPDX-License-Identifier: Apache-2.0
// A config segment of the control plane, mapped read-only and checked. Made by the
// housekeeping thread, read by the workers; unmapped when no worker reads it any more.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/worker/mapping_guard.hpp"

namespace sluice {

class attached_config {
 public:
  using view = abi::config_view;

  // attach() maps `path`. Refuses what attach_segment() refuses, sizes that do not fit
  // each other, and more services or backends than there are counters for.
  static tl::expected<std::unique_ptr<attached_config>, std::string> attach(
      const std::string& path, std::uint32_t service_rows, std::uint32_t backend_rows);

  [[nodiscard]] const std::atomic<std::uint64_t>& current() const noexcept { return *current_; }
  [[nodiscard]] std::uint64_t instance() const noexcept { return instance_; }
  [[nodiscard]] std::uint64_t inode() const noexcept { return file_.inode(); }
  // damaged(): the file was cut short, some of what it held reads as zeros now.
  [[nodiscard]] bool damaged() const noexcept { return guard_.faulted(); }
  // open() checks a slot's header and makes a view of it.
  bool open(unsigned slot, abi::config_view& out) const noexcept {
    return abi::config_view::open(file_.data(), limits_, slot, out);
  }

 private:
  explicit attached_config(abi::mapped_file file) noexcept
      : file_{std::move(file)}, guard_{file_.data(), file_.size()} {}
  abi::mapped_file file_;
  mapping_guard guard_;          // goes before the mapping does
  abi::config_limits limits_{};  // copied: later changes in the file cannot move the bounds
  std::uint64_t instance_{0};
  const std::atomic<std::uint64_t>* current_{nullptr};
};

}  // namespace sluice
