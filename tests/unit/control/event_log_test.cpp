// SPDX-License-Identifier: Apache-2.0
// What readers get of events, and what they learn of those that are gone.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/events/event_log.hpp"

namespace sluice::events {
namespace {

using namespace std::chrono_literals;

std::vector<std::uint64_t> ids(const batch& b) {
  std::vector<std::uint64_t> out;
  for (const auto& e : b.events) out.push_back(e->id);
  return out;
}

void add(event_log& log, int n) {
  for (int i = 0; i < n; ++i) log.add("publish", {}, {{"n", i}});
}

using numbers = std::vector<std::uint64_t>;

TEST(event_log, an_empty_one) {
  const event_log log{3, 100};
  EXPECT_EQ(log.last(), 100u);
  for (const std::uint64_t after : {0u, 100u}) {
    const batch b = log.read(after, 10);
    EXPECT_TRUE(b.events.empty());
    EXPECT_FALSE(b.missed);
    EXPECT_EQ(b.last, 100u);
  }
  EXPECT_TRUE(log.read(99, 10).missed);
  EXPECT_TRUE(log.newest(5).events.empty());
}

TEST(event_log, goes_on_where_the_reader_was) {
  event_log log{3, 100};
  add(log, 2);
  EXPECT_EQ(ids(log.read(0, 10)), (numbers{101, 102}));
  EXPECT_EQ(ids(log.read(101, 10)), (numbers{102}));
  EXPECT_EQ(log.read(0, 1).last, 101u);
  EXPECT_TRUE(log.read(102, 10).events.empty());
  EXPECT_FALSE(log.read(100, 10).missed);
}

TEST(event_log, tells_what_is_gone) {
  event_log log{3, 100};
  add(log, 5);  // 103, 104, 105 are kept
  EXPECT_FALSE(log.read(102, 10).missed);
  const batch b = log.read(101, 10);
  EXPECT_TRUE(b.missed);
  EXPECT_EQ(ids(b), (numbers{103, 104, 105}));
  EXPECT_FALSE(log.read(0, 10).missed);
  // A number of a run whose clock was ahead.
  const batch ahead = log.read(500, 10);
  EXPECT_TRUE(ahead.missed);
  EXPECT_EQ(ids(ahead), (numbers{103, 104, 105}));
  EXPECT_EQ(ids(log.newest(2)), (numbers{104, 105}));
}

TEST(event_log, numbers_grow_from_one_run_to_the_next) {
  event_log first;
  add(first, 1000);
  std::this_thread::sleep_for(2ms);
  const event_log second;
  EXPECT_GT(second.last(), first.last());
}

TEST(event_log, waits_for_the_next) {
  event_log log{3, 100};
  EXPECT_TRUE(log.wait(100, 10, 1ms).events.empty());
  std::thread later{[&] {
    std::this_thread::sleep_for(10ms);
    add(log, 1);
  }};
  EXPECT_EQ(ids(log.wait(100, 10, 10s)), (numbers{101}));
  later.join();
}

TEST(event_log, every_reader_sees_all_of_it) {
  event_log log{100'000, 0};
  constexpr std::size_t total = 20'000;
  std::vector<std::thread> readers;
  std::vector<std::size_t> seen(3);
  for (auto& count : seen)
    readers.emplace_back([&log, &count] {
      std::uint64_t after = 0;
      while (after < total) {
        const batch b = log.wait(after, 100, 100ms);
        for (const auto& e : b.events) ASSERT_EQ(e->id, ++count);
        after = b.last;
      }
    });
  for (std::size_t i = 0; i < total; ++i) log.add("publish", {}, nullptr);
  for (auto& r : readers) r.join();
  for (const std::size_t n : seen) EXPECT_EQ(n, total);
}

}  // namespace
}  // namespace sluice::events
