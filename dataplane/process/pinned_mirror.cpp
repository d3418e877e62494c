// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/pinned_mirror.hpp"

#include <bpf/bpf.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace sluice {
namespace {

using namespace std::chrono_literals;

// Between two rounds, and between two steps of one that nothing urges on.
constexpr auto round_every = 100ms;
constexpr auto look_every = 5ms;
// Places of a table looked at with the mutex held: under a millisecond.
constexpr std::uint64_t places_at_once = 8192;
// After this time nothing waits for a control plane that does not bring the new tables.
constexpr auto wait_for_tables = 10s;

}  // namespace

pinned_mirror::pinned_mirror(const maps& to, std::vector<abi::connection_reader> tables,
                             std::function<abi::config_view()> current, std::mutex& tables_mutex)
    : maps_{to},
      tables_{std::move(tables)},
      current_{std::move(current)},
      tables_mutex_{tables_mutex},
      thread_{[this] { run(); }} {}

pinned_mirror::~pinned_mirror() {
  stop_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void pinned_mirror::run() {
  read_map();
  auto next = std::chrono::steady_clock::now();
  while (!stop_.load(std::memory_order_relaxed)) {
    std::uint64_t number = 0;
    {
      const std::lock_guard lock{tables_mutex_};
      if (const abi::config_view view = current_(); !view.empty()) number = view.header().number;
    }
    const bool changed = number != generation_;
    if (number != 0 && (changed || std::chrono::steady_clock::now() >= next)) {
      if (changed) generation_since_ = std::chrono::steady_clock::now();
      generation_ = number;
      go_round(changed);
      next = std::chrono::steady_clock::now() + round_every;
    }
    std::this_thread::sleep_for(look_every);
  }
  go_round(true);
}

void pinned_mirror::go_round(bool hurry) {
  ++round_;
  const bool forget = standin_has(generation_) ||
                      std::chrono::steady_clock::now() - generation_since_ >= wait_for_tables;
  bool of_one_generation = true;
  flow_sorter sorter;
  std::uint64_t sorted_by = 0;
  std::vector<std::pair<sluice_flow, abi::backend_ref>> found;
  for (const abi::connection_reader& table : tables_) {
    const std::uint64_t places = table.capacity4() + table.capacity6();
    for (std::uint64_t at = 0; at < places; at += places_at_once) {
      found.clear();
      {
        const std::lock_guard lock{tables_mutex_};
        const abi::config_view view = current_();
        if (view.empty()) return;
        of_one_generation &= view.header().number == generation_;
        if (view.header().number != sorted_by) {
          sorter = flow_sorter{view};
          sorted_by = view.header().number;
        } else {
          sorter.look_at(view);  // another segment may have the same number, and the old be gone
        }
        table.for_each(at, places_at_once, [&](const abi::connection_view& c) {
          if (sluice_flow flow; sorter.pinned(c, flow)) found.emplace_back(flow, c.backend);
          return true;
        });
      }
      for (const auto& [flow, backend] : found) tell(flow, backend);
      if (!hurry && !stop_.load(std::memory_order_relaxed)) std::this_thread::sleep_for(1ms);
    }
  }
  if (!of_one_generation) return;
  if (told_generation_ != generation_) {
    const std::uint32_t place = SLUICE_TOLD_GENERATION;
    if (bpf_map_update_elem(maps_.heartbeat, &place, &generation_, BPF_ANY) == 0)
      told_generation_ = generation_;
  }
  if (forget) forget_the_rest();
}

// standin_has() tells whether the stand-in's tables are those of a generation, or nobody has given
// it any.
bool pinned_mirror::standin_has(std::uint64_t generation) const {
  const std::uint32_t zero = 0;
  sluice_standin_config config{};
  return bpf_map_lookup_elem(maps_.config, &zero, &config) != 0 || config.ready == 0 ||
         config.generation == generation;
}

void pinned_mirror::tell(const sluice_flow& flow, abi::backend_ref backend) {
  const auto known = told_.find(flow);
  if (known != told_.end() && known->second.backend == backend.value) {
    known->second.round = round_;
    return;
  }
  if (bpf_map_update_elem(maps_.pinned, &flow, &backend.value, BPF_ANY) == 0) {
    told_[flow] = {backend.value, round_};
  } else if (!std::exchange(said_full_, true)) {
    spdlog::warn("the stand-in cannot be told of all connections: {}",
                 errno == E2BIG ? "its map is full" : std::strerror(errno));
  }
}

void pinned_mirror::forget_the_rest() {
  std::erase_if(told_, [this](const auto& t) {
    if (t.second.round == round_) return false;
    bpf_map_delete_elem(maps_.pinned, &t.first);
    return true;
  });
}

// read_map() takes up what the data plane before has told.
void pinned_mirror::read_map() {
  sluice_flow key{};
  const sluice_flow* previous = nullptr;
  for (sluice_flow next{}; told_.size() < SLUICE_MAX_PINNED &&
                           bpf_map_get_next_key(maps_.pinned, previous, &next) == 0;) {
    std::uint32_t backend = 0;
    if (bpf_map_lookup_elem(maps_.pinned, &next, &backend) == 0) told_[next] = {backend, 0};
    key = next;
    previous = &key;
  }
}

}  // namespace sluice
