// SPDX-License-Identifier: Apache-2.0
#include "controlplane/loop/timer_heap.hpp"

#include <algorithm>
#include <utility>

namespace sluice::loop {

namespace {
// Four children share a cache line, and the heap is half as deep as a binary one.
constexpr std::size_t arity = 4;
}  // namespace

timer_heap::id timer_heap::add(time_point due, task fn) {
  if (free_.empty()) {
    slots_.emplace_back();
    free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
  }
  const std::uint32_t index = free_.back();
  heap_.push_back({due, index});
  free_.pop_back();
  slot& s = slots_[index];
  s.fn = std::move(fn);
  s.pending = true;
  sift_up(heap_.size() - 1);
  return (id{s.generation} << 32) | index;
}

bool timer_heap::cancel(id which) noexcept {
  const auto index = static_cast<std::uint32_t>(which);
  if (index >= slots_.size()) return false;
  const slot& s = slots_[index];
  if (!s.pending || s.generation != static_cast<std::uint32_t>(which >> 32)) return false;
  remove_at(s.position);
  // Destroyed last: what the task holds may end in another cancel().
  const task dropped = std::move(slots_[index].fn);
  release(index);
  return true;
}

bool timer_heap::pop_due(time_point now, task& fn) {
  if (heap_.empty() || heap_.front().due > now) return false;
  const std::uint32_t index = heap_.front().slot;
  remove_at(0);
  fn = std::move(slots_[index].fn);
  release(index);
  return true;
}

void timer_heap::release(std::uint32_t index) noexcept {
  slot& s = slots_[index];
  s.fn = nullptr;
  s.pending = false;
  if (++s.generation == 0) s.generation = 1;
  free_.push_back(index);
}

void timer_heap::place(std::size_t at, node n) noexcept {
  heap_[at] = n;
  slots_[n.slot].position = static_cast<std::uint32_t>(at);
}

void timer_heap::sift_up(std::size_t at) noexcept {
  const node n = heap_[at];
  while (at > 0) {
    const std::size_t parent = (at - 1) / arity;
    if (heap_[parent].due <= n.due) break;
    place(at, heap_[parent]);
    at = parent;
  }
  place(at, n);
}

void timer_heap::sift_down(std::size_t at) noexcept {
  const node n = heap_[at];
  for (;;) {
    const std::size_t first = at * arity + 1;
    if (first >= heap_.size()) break;
    const std::size_t end = std::min(first + arity, heap_.size());
    std::size_t least = first;
    for (std::size_t i = first + 1; i < end; ++i)
      if (heap_[i].due < heap_[least].due) least = i;
    if (heap_[least].due >= n.due) break;
    place(at, heap_[least]);
    at = least;
  }
  place(at, n);
}

void timer_heap::remove_at(std::size_t at) noexcept {
  const node last = heap_.back();
  heap_.pop_back();
  if (at == heap_.size()) return;
  place(at, last);
  sift_down(at);
  sift_up(slots_[last.slot].position);
}

}  // namespace sluice::loop
