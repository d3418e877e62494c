// SPDX-License-Identifier: Apache-2.0
// timer_heap: one-shot timers in an indexed 4-ary heap. add, cancel and pop are
// O(log n); 10,000 timers are a heap of seven levels in 160 KB. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace sluice::loop {

class timer_heap {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  using task = std::function<void()>;
  // High 32 bits: generation of the slot, never 0; low 32 bits: the slot.
  using id = std::uint64_t;

  id add(time_point due, task fn);
  // cancel() is false when id is not pending.
  bool cancel(id which) noexcept;
  // pop_due() takes the earliest timer that is due at now into fn; false if none is.
  bool pop_due(time_point now, task& fn);
  // earliest() is time_point::max() when there is no timer.
  [[nodiscard]] time_point earliest() const noexcept {
    return heap_.empty() ? time_point::max() : heap_.front().due;
  }
  [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }

 private:
  struct node {
    time_point due;
    std::uint32_t slot;
  };
  struct slot {
    task fn;
    std::uint32_t generation{1};
    std::uint32_t position{};  // in heap_ while pending
    bool pending{false};
  };

  void place(std::size_t at, node n) noexcept;
  void sift_up(std::size_t at) noexcept;
  void sift_down(std::size_t at) noexcept;
  void remove_at(std::size_t at) noexcept;
  void release(std::uint32_t index) noexcept;

  std::vector<node> heap_;
  std::vector<slot> slots_;
  std::vector<std::uint32_t> free_;
};

}  // namespace sluice::loop
