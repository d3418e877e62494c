// SPDX-License-Identifier: Apache-2.0
#include "controlplane/loop/timer_heap.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace sluice::loop {
namespace {

using time_point = timer_heap::time_point;

time_point at(int ms) {
  return time_point{std::chrono::milliseconds{ms}};
}

TEST(timer_heap, pops_in_order_of_due_time_and_not_before) {
  timer_heap heap;
  std::vector<int> fired;
  for (const int ms : {30, 10, 20, 10}) heap.add(at(ms), [&fired, ms] { fired.push_back(ms); });
  EXPECT_EQ(heap.earliest(), at(10));
  timer_heap::task fn;
  EXPECT_FALSE(heap.pop_due(at(9), fn));
  while (heap.pop_due(at(20), fn)) fn();
  EXPECT_EQ(fired, (std::vector{10, 10, 20}));
  EXPECT_EQ(heap.size(), 1U);
  ASSERT_TRUE(heap.pop_due(at(30), fn));
  EXPECT_EQ(heap.earliest(), time_point::max());
}

TEST(timer_heap, an_id_is_dead_after_cancel_and_after_firing) {
  timer_heap heap;
  timer_heap::task fn;
  const auto first = heap.add(at(1), [] {});
  EXPECT_TRUE(heap.cancel(first));
  EXPECT_FALSE(heap.cancel(first));
  const auto second = heap.add(at(1), [] {});  // takes the same slot
  EXPECT_NE(first, second);
  EXPECT_FALSE(heap.cancel(first));
  EXPECT_TRUE(heap.pop_due(at(1), fn));
  EXPECT_FALSE(heap.cancel(second));
  EXPECT_FALSE(heap.cancel(0));
}

TEST(timer_heap, agrees_with_a_sorted_map_under_random_use) {
  timer_heap heap;
  std::multimap<int, timer_heap::id> model;
  std::mt19937 random{7};
  int fired = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto dice = random() % 10;
    if (dice < 5) {
      const int due = static_cast<int>(random() % 1000);
      model.emplace(due, heap.add(at(due), [&fired, due] { fired = due; }));
    } else if (dice < 8 && !model.empty()) {
      auto it = model.begin();
      std::advance(it,
                   static_cast<std::ptrdiff_t>(random() % std::min<std::size_t>(model.size(), 50)));
      ASSERT_TRUE(heap.cancel(it->second));
      model.erase(it);
    } else if (!model.empty()) {
      timer_heap::task fn;
      ASSERT_TRUE(heap.pop_due(at(1000), fn));
      fn();
      ASSERT_EQ(fired, model.begin()->first);
      // Of equal times the heap may take any: drop the one that is no longer pending.
      auto [it, end] = model.equal_range(fired);
      const std::size_t size = heap.size();
      while (it != end && heap.cancel(it->second)) {
        it->second = heap.add(at(fired), [&fired, due = it->first] { fired = due; });
        ++it;
      }
      ASSERT_NE(it, end);
      ASSERT_EQ(heap.size(), size);
      model.erase(it);
    }
    ASSERT_EQ(heap.size(), model.size());
    ASSERT_EQ(heap.earliest(), model.empty() ? time_point::max() : at(model.begin()->first));
  }
}

}  // namespace
}  // namespace sluice::loop
