// SPDX-License-Identifier: Apache-2.0
// How often a worker looks at the clock and the tables, and says that it lives: by time where
// its turns are long. A queue whose reader takes a millisecond stands for everything that makes
// them so; the EAL is there for the frequency of the cycle counter alone.
#include <gtest/gtest.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/connection/table_file.hpp"
#include "dataplane/worker/worker.hpp"

namespace sluice {
namespace {

constexpr unsigned turns = 600;

// slow_queue: what the worker reads; knows how many turns its heartbeat stood still.
struct slow_queue {
  class worker* reader;
  const abi::worker_block* block;
  unsigned polled{0};
  unsigned still{0};
  unsigned longest{0};
  std::uint64_t last{0};

  static std::uint16_t poll(void* queue, rte_mbuf**, std::uint16_t) {
    auto& q = *static_cast<slow_queue*>(queue);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds{1};
    while (std::chrono::steady_clock::now() < until) {
    }
    const std::uint64_t heartbeat = q.block->heartbeat_ns.read();
    q.still = heartbeat == q.last ? q.still + 1 : 0;
    q.last = heartbeat;
    q.longest = std::max(q.longest, q.still);
    if (++q.polled == turns) q.reader->request_stop();
    return 0;
  }
};

TEST(worker_pace, looks_by_time_where_turns_are_long) {
  std::vector<std::string> words{"worker_pace",
                                 "--no-huge",
                                 "--no-pci",
                                 "--no-shconf",
                                 "--no-telemetry",
                                 "--log-level=error",
                                 "-m",
                                 "16",
                                 "-l",
                                 std::to_string(::sched_getcpu())};
  std::vector<char*> arguments;
  for (std::string& w : words) arguments.push_back(w.data());
  ASSERT_GE(rte_eal_init(static_cast<int>(arguments.size()), arguments.data()), 0);

  connection::table_file_options options;
  options.connections4 = options.connections6 = 1024;
  auto table = connection::table_file::anonymous(options, {1, 2});
  ASSERT_TRUE(table) << table.error();
  const auto block = std::make_unique<abi::worker_block>();
  std::array<abi::service_counters, 1> services{};
  std::array<abi::backend_counters, 1> backends{};
  const std::atomic<const attached_config*> no_tables{nullptr};

  worker_setup setup;
  setup.rx.push_back({0, 0, 0});
  setup.ports.push_back({});
  setup.block = block.get();
  setup.counters = {block->counters.data(), services.data(), 1, backends.data(), 1, {}, 0};
  setup.connections = table->data();
  setup.config = &no_tables;
  const auto under_test = std::make_unique<worker>(std::move(setup));

  slow_queue queue{under_test.get(), block.get()};
  std::array<void*, 1> queues{&queue};
  std::array<void*, 1> no_callbacks{nullptr};
  auto& device = rte_eth_fp_ops[0];
  device.rx_pkt_burst = &slow_queue::poll;
  device.rxq.data = queues.data();
  device.rxq.clbk = no_callbacks.data();

  under_test->run();
  EXPECT_EQ(queue.polled, turns);
  EXPECT_LE(queue.longest, 10u) << "turns of a millisecond without a heartbeat";
  rte_eal_cleanup();
}

}  // namespace
}  // namespace sluice
