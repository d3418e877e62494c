// SPDX-License-Identifier: Apache-2.0
// Finding the control plane's config segment, and giving the workers a new one when it
// was replaced. Housekeeping thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/worker/attached_config.hpp"

namespace sluice {

class config_link {
 public:
  config_link(std::string path, std::uint32_t service_rows, std::uint32_t backend_rows)
      : path_{std::move(path)}, service_rows_{service_rows}, backend_rows_{backend_rows} {}

  // wanted() is what the workers follow.
  [[nodiscard]] const std::atomic<const attached_config*>& wanted() const noexcept {
    return wanted_;
  }

  // in_use_by_all(c): every worker reads c. in_use_by_any(c): some worker does.
  struct usage {
    std::function<bool(const attached_config*)> by_all;
    std::function<bool(const attached_config*)> by_any;
  };

  // poll() looks at the file, attaches, offers, and unmaps what nobody reads any more.
  // Logs what changes, once.
  void poll(const usage& in_use);

  // offered_instance() and offered_view(): of the segment that the workers are offered, 0
  // and empty if there is none. Before the workers run.
  [[nodiscard]] std::uint64_t offered_instance() const noexcept {
    return current_ ? current_->instance() : 0;
  }
  [[nodiscard]] abi::config_view offered_view() const noexcept;

  // instance() is that of the segment that all workers read, 0 if there is none.
  [[nodiscard]] std::uint64_t instance() const noexcept { return instance_; }

 private:
  // identity: tells a file from one that later has the same name, and even inode number.
  struct identity {
    std::uint64_t inode{0};
    std::int64_t changed_ns{0};
    bool operator==(const identity&) const = default;
  };
  [[nodiscard]] identity look() const noexcept;
  void attach(const identity& file);
  void offer();

  std::string path_;
  std::uint32_t service_rows_;
  std::uint32_t backend_rows_;
  std::atomic<const attached_config*> wanted_{nullptr};
  std::unique_ptr<attached_config> current_;    // what wanted_ points to
  std::unique_ptr<attached_config> candidate_;  // attached, nothing published in it yet
  std::vector<std::unique_ptr<attached_config>> retired_;
  identity refused_;
  bool said_waiting_{false};
  const attached_config* said_damaged_{nullptr};
  std::uint64_t instance_{0};
};

}  // namespace sluice
