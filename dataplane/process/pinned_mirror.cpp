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

}  // namespace

pinned_mirror::pinned_mirror(int map, std::vector<abi::connection_reader> tables,
                             std::function<abi::config_view()> current, std::mutex& tables_mutex)
    : map_{map},
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
  forget_the_rest();
}

void pinned_mirror::tell(const sluice_flow& flow, abi::backend_ref backend) {
  const auto known = told_.find(flow);
  if (known != told_.end() && known->second.backend == backend.value) {
    known->second.round = round_;
    return;
  }
  if (bpf_map_update_elem(map_, &flow, &backend.value, BPF_ANY) == 0) {
    told_[flow] = {backend.value, round_};
  } else if (!std::exchange(said_full_, true)) {
    spdlog::warn("the stand-in cannot be told of all connections: {}",
                 errno == E2BIG ? "its map is full" : std::strerror(errno));
  }
}

void pinned_mirror::forget_the_rest() {
  std::erase_if(told_, [this](const auto& t) {
    if (t.second.round == round_) return false;
    bpf_map_delete_elem(map_, &t.first);
    return true;
  });
}

// read_map() takes up what the data plane before has told.
void pinned_mirror::read_map() {
  sluice_flow key{};
  const sluice_flow* previous = nullptr;
  for (sluice_flow next{};
       told_.size() < SLUICE_MAX_PINNED && bpf_map_get_next_key(map_, previous, &next) == 0;) {
    std::uint32_t backend = 0;
    if (bpf_map_lookup_elem(map_, &next, &backend) == 0) told_[next] = {backend, 0};
    key = next;
    previous = &key;
  }
}

}  // namespace sluice
