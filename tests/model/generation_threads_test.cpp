// SPDX-License-Identifier: Apache-2.0
// The publish protocol with real threads and plain (non-atomic) slots, for about two
// seconds. In a build with -Db_sanitize=thread, ThreadSanitizer proves that the protocol's
// orderings make every overwrite happen after every read before it (what the
// interleavings of generation_model_test.cpp, which are sequentially consistent, cannot);
// in any build, the content of each slot read must be whole.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "dataplane/abi/generation.hpp"

namespace sluice::abi {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t reader_count = 2;
using slot = std::array<std::uint64_t, 64>;

struct shared {
  std::atomic<std::uint64_t> current{0};
  std::array<epoch_cell<>, reader_count> cells{};
  std::array<slot, config_slots> slots{};
  std::atomic<bool> done{false};
};

void run(unsigned slots) {
  shared s;
  std::array<std::uint64_t, reader_count> reads{};
  std::array<std::uint64_t, reader_count> taken_up{};
  std::array<std::uint64_t, reader_count> broken{};
  std::vector<std::thread> readers;
  for (std::size_t me = 0; me < reader_count; ++me) {
    readers.emplace_back([&, me] {
      while (!s.done.load(std::memory_order_relaxed)) {
        generation_word held = generation_reader<>::start(s.cells[me], s.current);
        // From time to time it stops and starts again.
        for (int i = 0; i < 500 && !s.done.load(std::memory_order_relaxed); ++i) {
          if (!held.none()) {
            for (const std::uint64_t v : s.slots[held.slot()]) broken[me] += v != held.number();
            ++reads[me];
          }
          if (i % 16 == 0) std::this_thread::yield();  // there may be fewer cores than threads
          const generation_word next = generation_reader<>::poll(s.cells[me], s.current, held);
          taken_up[me] += !(next == held);
          held = next;
        }
        generation_reader<>::stop(s.cells[me]);
      }
    });
  }
  std::uint64_t g = 0;
  const auto end = std::chrono::steady_clock::now() + 900ms;
  while (std::chrono::steady_clock::now() < end) {
    ++g;
    const auto at = static_cast<unsigned>(g % slots);
    if (g > slots)
      while (!generation_writer<>::quiescent(s.cells, g - slots + 1)) std::this_thread::yield();
    s.slots[at].fill(g);
    generation_writer<>::publish(s.current, generation_word::make(g, at));
  }
  s.done = true;
  for (std::thread& t : readers) t.join();
  for (std::size_t me = 0; me < reader_count; ++me) {
    EXPECT_EQ(broken[me], 0u) << "reader " << me;
    EXPECT_GT(taken_up[me], 3u) << "reader " << me;
    std::printf("%u slots, reader %zu: %lu reads, %lu of %lu generations taken up\n", slots, me,
                static_cast<unsigned long>(reads[me]), static_cast<unsigned long>(taken_up[me]),
                static_cast<unsigned long>(g));
  }
  EXPECT_GT(g, 20u);
}

TEST(generation_threads, ThreeSlots) {
  run(3);
}
TEST(generation_threads, TwoSlots) {
  run(2);
}

}  // namespace
}  // namespace sluice::abi
