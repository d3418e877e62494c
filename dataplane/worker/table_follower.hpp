// SPDX-License-Identifier: Apache-2.0
// A worker's side of the publish protocol (abi/generation.hpp), and of the change from
// one config segment to another. poll() at quiescent points only.
//
// A generation that fails its checks is refused: the worker keeps the one it has, and
// does not report the new one, so that the control plane does not reuse what is still in
// use. The next good generation is taken up as usual. A control plane that publishes
// nothing but bad ones comes to a halt waiting; forwarding goes on.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/worker/attached_config.hpp"

namespace sluice {

class table_follower {
 public:
  // wanted: the segment to read, null for none; set by the housekeeping thread.
  table_follower(abi::epoch_cell<>& cell,
                 const std::atomic<const attached_config*>& wanted) noexcept
      : cell_{cell}, wanted_{wanted} {}

  // poll() calls set_view(const config_view&) when the tables change. After that call
  // nothing of the earlier view may be in use. Worker thread.
  template <class SetView>
  void poll(SetView&& set_view) noexcept {
    const attached_config* wanted = wanted_.load(std::memory_order_acquire);
    if (wanted != held_) {
      change_segment(wanted, set_view);
      return;
    }
    if (held_ == nullptr) return;
    const abi::generation_word now = reader::peek(held_->current());
    if (now == current_ || now == refused_) return;
    abi::config_view view;
    if (!held_->open(now.slot(), view)) {
      refuse(now);
      return;
    }
    set_view(view);
    reader::report(cell_, now);
    current_ = now;
  }

  // stop() is called when the worker reads no table any more.
  void stop() noexcept {
    reader::stop(cell_);
    held_ = nullptr;
    in_use_.store(nullptr, std::memory_order_release);
  }

  // in_use() is the segment that the worker reads. It may be unmapped when no worker does
  // and it is not wanted. Any thread.
  [[nodiscard]] const attached_config* in_use() const noexcept {
    return in_use_.load(std::memory_order_acquire);
  }
  // refused() counts the generations that failed their checks. Any thread.
  [[nodiscard]] std::uint64_t refused() const noexcept {
    return refused_count_.load(std::memory_order_relaxed);
  }

 private:
  using reader = abi::generation_reader<>;

  template <class SetView>
  void change_segment(const attached_config* wanted, SetView& set_view) noexcept {
    if (held_ != nullptr) {
      set_view(abi::config_view{});
      reader::stop(cell_);
    }
    held_ = wanted;
    current_ = refused_ = {};
    in_use_.store(wanted, std::memory_order_release);
    if (wanted == nullptr) return;
    const abi::generation_word now = reader::start(cell_, wanted->current());
    if (now.none()) return;
    abi::config_view view;
    if (!wanted->open(now.slot(), view)) {
      refuse(now);
      return;
    }
    set_view(view);
    current_ = now;
  }
  void refuse(abi::generation_word bad) noexcept {
    refused_ = bad;
    refused_count_.store(refused() + 1, std::memory_order_relaxed);
  }

  abi::epoch_cell<>& cell_;
  const std::atomic<const attached_config*>& wanted_;
  const attached_config* held_{nullptr};
  abi::generation_word current_{};
  abi::generation_word refused_{};
  std::atomic<const attached_config*> in_use_{nullptr};
  std::atomic<std::uint64_t> refused_count_{0};
};

}  // namespace sluice
