// SPDX-License-Identifier: Apache-2.0
// What a change costs the control plane: Maglev tables over the number of backends, in one
// thread and in two, and the time from a verdict until the last worker uses the new table.
//
//   control_benchmark --benchmark_filter=maglev
#include <benchmark/benchmark.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/maglev/maglev.hpp"
#include "controlplane/publish/config_writer.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice {
namespace {

using std::chrono::steady_clock;

std::vector<maglev::member> members_of(std::int64_t count) {
  std::vector<maglev::member> members;
  for (std::int64_t i = 0; i < count; ++i)
    members.push_back(
        {{test::v4(10, 0, static_cast<unsigned>(i) >> 8 & 255, static_cast<unsigned>(i) & 255), 0},
         100});
  return members;
}

// Arguments: backends, slots.
void one_table(benchmark::State& state) {
  const auto members = members_of(state.range(0));
  std::vector<std::uint16_t> table(static_cast<std::size_t>(state.range(1)));
  for (auto _ : state) {
    if (!maglev::build(members, 42, table)) state.SkipWithError("the table is refused");
    benchmark::ClobberMemory();
  }
}

// 100 tables of 1000 backends. Argument: threads.
void hundred_tables(benchmark::State& state) {
  const tbb::global_control threads{tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(state.range(0))};
  const auto members = members_of(1000);
  std::vector<std::vector<std::uint16_t>> tables(100, std::vector<std::uint16_t>(65537));
  std::atomic<bool> refused{false};
  for (auto _ : state) {
    tbb::parallel_for(std::size_t{0}, tables.size(), [&](std::size_t i) {
      if (!maglev::build(members, i, tables[i])) refused = true;
    });
    benchmark::ClobberMemory();
  }
  if (refused) state.SkipWithError("a table is refused");
}

// From a changed weight until the last of two readers, which look every 50 us as a worker at
// work does, has reported the generation. Arguments: services, backends of each.
void publish(benchmark::State& state) {
  constexpr unsigned workers = 2;
  const auto watch = std::make_shared<test::cell_watch<workers>>();
  auto segment = publish::config_segment::in_memory({4096, 65536, 512u << 20});
  if (!segment) return state.SkipWithError("no memory for a segment");
  const auto writer = publish::config_writer::fresh(std::move(*segment), {.hash_seed = 1}, watch);
  auto wanted = test::plain_state(static_cast<unsigned>(state.range(0)),
                                  static_cast<unsigned>(state.range(1)), 65537);
  if (writer->publish(wanted).status != publish::publish_status::published)
    return state.SkipWithError("the first generation is refused");
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (unsigned i = 0; i < workers; ++i)
    readers.emplace_back([&, i] {
      const auto& current = writer->segment().control().current;
      auto held = abi::generation_reader<>::start(watch->cells[i], current);
      while (!stop.load(std::memory_order_relaxed)) {
        held = abi::generation_reader<>::poll(watch->cells[i], current, held);
        std::this_thread::sleep_for(std::chrono::microseconds{50});
      }
      abi::generation_reader<>::stop(watch->cells[i]);
    });
  std::vector<double> took;
  std::size_t round = 0;
  for (auto _ : state) {
    auto& service = wanted.services[round % wanted.services.size()];
    auto& backend = service.backends[round * 7 % service.backends.size()];
    ++round;
    const auto begin = steady_clock::now();
    backend.effective_weight = backend.effective_weight == 0 ? 100 : 0;
    auto done = writer->publish(wanted);
    while (done.status == publish::publish_status::pending) done = writer->publish(wanted);
    if (done.status != publish::publish_status::published) {
      state.SkipWithError(done.error.c_str());
      break;
    }
    while (!watch->quiescent(done.generation)) std::this_thread::yield();
    took.push_back(std::chrono::duration<double, std::milli>(steady_clock::now() - begin).count());
  }
  stop = true;
  for (auto& r : readers) r.join();
  if (took.empty()) return;
  std::sort(took.begin(), took.end());
  const auto at = [&](double q) {
    return took[std::min(took.size() - 1,
                         static_cast<std::size_t>(q * static_cast<double>(took.size())))];
  };
  state.counters["p50_ms"] = at(.5);
  state.counters["p99_ms"] = at(.99);
  state.counters["max_ms"] = took.back();
}

BENCHMARK(one_table)
    ->Name("maglev/build")
    ->ArgsProduct({{10, 100, 1000, 4000}, {65537, 655373}})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(hundred_tables)
    ->Name("maglev/hundred_tables")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(publish)
    ->Name("publish/until_all_use_it")
    ->Args({1, 100})
    ->Args({100, 100})
    ->Args({1000, 50})
    ->UseRealTime()
    ->Iterations(300)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
