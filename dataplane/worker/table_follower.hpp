// SPDX-License-Identifier: Apache-2.0
// A worker's side of the publish protocol (abi/generation.hpp), and of the change from
// one config segment to another. poll() at quiescent points only.
//
// A generation that fails its checks is refused: the worker keeps the one it has, and
// does not report the new one, so that the control plane does not reuse what is still in
// use. The next good generation is taken up as usual. A control plane that publishes
// nothing but bad ones comes to a halt waiting; forwarding goes on. The same if it takes
// back what it has published (number 0): no generation at all is no reason to forget one.
//
// Atom and Config are parameters so that tests/model can explore this very code.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/worker/attached_config.hpp"

namespace sluice {

template <template <class> class Atom, class Config>
class basic_table_follower {
 public:
  // wanted: the segment to read, null for none; set by the housekeeping thread.
  basic_table_follower(abi::epoch_cell<Atom>& cell, const Atom<const Config*>& wanted) noexcept
      : cell_{cell}, wanted_{wanted} {}

  // poll() calls set_view(const Config::view&) when the tables change. After that call
  // nothing of the earlier view may be in use. Worker thread.
  template <class SetView>
  void poll(SetView&& set_view) noexcept {
    const Config* wanted = wanted_.load(std::memory_order_acquire);
    if (wanted != held_) {
      change_segment(wanted, set_view);
      return;
    }
    if (held_ == nullptr) return;
    const abi::generation_word now = reader::peek(held_->current());
    if (now.none() || now == current_ || now == refused_) return;
    typename Config::view view;
    if (!opened(now, view)) {
      refuse(now);
      return;
    }
    set_view(view);
    reader::report(cell_, now);  // not before set_view(): until then the old one is in use
    current_ = now;
  }

  // stop() is called when the worker reads no table any more.
  void stop() noexcept {
    reader::stop(cell_);
    held_ = nullptr;
    in_use_.store(nullptr, std::memory_order_release);
  }

  // in_use() is the segment that the worker reads. It may be unmapped when no worker does
  // and it is not wanted any more: first change `wanted` (seq_cst), then ask. Any thread.
  [[nodiscard]] const Config* in_use() const noexcept {
    return in_use_.load(std::memory_order_seq_cst);
  }
  // refused() counts the generations that failed their checks. Any thread.
  [[nodiscard]] std::uint64_t refused() const noexcept {
    return refused_count_.load(std::memory_order_relaxed);
  }

 private:
  using reader = abi::generation_reader<Atom>;

  template <class SetView>
  void change_segment(const Config* wanted, SetView& set_view) noexcept {
    if (held_ != nullptr) {
      set_view(typename Config::view{});
      reader::stop(cell_);
    }
    // A hazard pointer: the segment may have been replaced and unmapped since `wanted` was
    // read. If it is still wanted after in_use_ names it, it will not be (Michael 2004).
    for (;;) {
      in_use_.store(wanted, std::memory_order_seq_cst);
      const Config* const still = wanted_.load(std::memory_order_seq_cst);
      if (still == wanted) break;
      wanted = still;
    }
    held_ = wanted;
    current_ = refused_ = {};
    if (wanted == nullptr) return;
    const abi::generation_word now = reader::start(cell_, wanted->current());
    if (now.none()) return;
    typename Config::view view;
    if (!opened(now, view)) {
      refuse(now);
      return;
    }
    set_view(view);
    current_ = now;
  }
  // opened() checks the slot, and that it holds what the word says.
  bool opened(abi::generation_word now, typename Config::view& view) const noexcept {
    return held_->open(now.slot(), view) && view.header().number == now.number();
  }
  void refuse(abi::generation_word bad) noexcept {
    refused_ = bad;
    refused_count_.store(refused() + 1, std::memory_order_relaxed);
  }

  abi::epoch_cell<Atom>& cell_;
  const Atom<const Config*>& wanted_;
  const Config* held_{nullptr};
  abi::generation_word current_{};
  abi::generation_word refused_{};
  Atom<const Config*> in_use_{nullptr};
  std::atomic<std::uint64_t> refused_count_{0};
};

using table_follower = basic_table_follower<std::atomic, attached_config>;

}  // namespace sluice
