// SPDX-License-Identifier: Apache-2.0
// Readers in threads look flows up while a writer publishes as fast as it can. Under
// ThreadSanitizer any overwritten slot or table is a report; without it, the content is
// checked: every generation that a reader sees is whole.
#include <gtest/gtest.h>

#include <thread>

#include "controlplane/publish/config_writer.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::publish {
namespace {

constexpr unsigned reader_count = 3;
constexpr unsigned services = 4;

TEST(publish_threads, readers_never_see_half_a_generation) {
  const auto watch = std::make_shared<test::cell_watch<reader_count>>();
  auto segment = config_segment::in_memory({8, 64, 64u << 10});
  ASSERT_TRUE(segment);
  const auto writer = config_writer::fresh(std::move(*segment), {.hash_seed = 1}, watch);
  // One table at a time, here and below, is built without TBB's threads: its library is not
  // instrumented, and ThreadSanitizer would take its synchronisation for none.
  published_state state;
  state.revision = 1;
  for (unsigned i = 0; i < services; ++i) {
    state.services.push_back(test::plain_service(i, 4, 251));
    ASSERT_EQ(writer->publish(state).status, publish_status::published);
  }
  const std::byte* const data = writer->segment().data();
  const abi::config_limits limits = writer->segment().limits();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> looked_up{0};
  std::atomic<std::uint64_t> wrong{0};

  std::vector<std::thread> readers;
  for (unsigned r = 0; r < reader_count; ++r)
    readers.emplace_back([&, r] {
      const auto& current =
          reinterpret_cast<const abi::config_control*>(data + sizeof(abi::segment_header))->current;
      auto& cell = watch->cells[r];
      auto held = abi::generation_reader<>::start(cell, current);
      std::uint64_t hash = r;
      std::uint64_t n = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        held = abi::generation_reader<>::poll(cell, current, held);
        abi::config_view view;
        if (!abi::config_view::open(data, limits, held.slot(), view) ||
            view.header().number != held.number()) {
          wrong.fetch_add(1);
          continue;
        }
        for (unsigned s = 0; s < services; ++s, ++n) {
          hash = sluice_mix64(hash + 1);
          const auto* vip = view.find_vip(test::v4(198, 51, 100, s + 1), 6);
          const auto* row = vip ? view.find_service(*vip, 80) : nullptr;
          const auto* backend = row ? view.backend(view.choose(*row, hash)) : nullptr;
          // Each backend's MAC ends with the revision it was published in.
          if (backend == nullptr || backend->service != row->self ||
              backend->next_hop[5] != static_cast<std::uint8_t>(view.header().revision))
            wrong.fetch_add(1);
        }
        if (n % 64 == 0) {  // a worker that stops and starts again
          abi::generation_reader<>::stop(cell);
          held = abi::generation_reader<>::start(cell, current);
        }
      }
      abi::generation_reader<>::stop(cell);
      looked_up.fetch_add(n);
    });

  std::uint64_t published = 0;
  std::uint64_t pending = 0;
  std::uint64_t random = 7;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds{1500};
  while (std::chrono::steady_clock::now() < end) {
    ++state.revision;
    random = sluice_mix64(random + 1);
    auto& service = state.services[random % services];
    service.backends[(random >> 8) % 4].effective_weight =
        static_cast<std::uint32_t>((random >> 16) % 3) * 100;
    service.backends[((random >> 8) + 1) % 4].effective_weight = 100;
    for (auto& s : state.services)
      for (auto& b : s.backends) b.next_hop->mac[5] = static_cast<std::uint8_t>(state.revision);
    for (;;) {
      const auto done = writer->publish(state);
      ASSERT_NE(done.status, publish_status::refused) << done.error;
      if (done.status == publish_status::published) break;
      ++pending;
      std::this_thread::yield();
    }
    ++published;
  }
  stop = true;
  for (auto& t : readers) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GT(published, 50u);
  EXPECT_GT(looked_up.load(), 1000u);
  std::printf("%lu generations, %lu times deferred, %lu look-ups\n",
              static_cast<unsigned long>(published), static_cast<unsigned long>(pending),
              static_cast<unsigned long>(looked_up.load()));
}

}  // namespace
}  // namespace sluice::publish
