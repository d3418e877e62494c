// SPDX-License-Identifier: Apache-2.0
// The counters of counters.def as an enum, names and texts.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::abi {

enum class counter_id : std::uint16_t {
#define SLUICE_COUNTER(name, text) name,
#define SLUICE_DROP(name, text) drop_##name,
#include "dataplane/abi/counters.def"
  count_
};

inline constexpr std::size_t counter_count = static_cast<std::size_t>(counter_id::count_);
// Room for later counters without a change of the layout.
inline constexpr std::size_t counter_capacity = 128;
static_assert(counter_count <= counter_capacity);

struct counter_info {
  std::string_view name;  // as the CLI and Prometheus show it
  std::string_view text;
  bool drop;
};

inline constexpr std::array<counter_info, counter_count> counter_infos{{
#define SLUICE_COUNTER(name, text) {#name, text, false},
#define SLUICE_DROP(name, text) {#name, text, true},
#include "dataplane/abi/counters.def"
}};

#if defined(__SANITIZE_THREAD__)
#define SLUICE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLUICE_TSAN 1
#endif
#endif

// counter: one writer, any number of readers in other processes. add() is a plain
// load-add-store: no locked instruction.
class counter {
 public:
  void add(std::uint64_t n) noexcept {
#if defined(__x86_64__) && !defined(SLUICE_TSAN)
    // One instruction where gcc makes three of the atomic's load, add and store.
    asm("addq %1, %0" : "+m"(value_) : "re"(n) : "cc");
#else
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
#endif
  }
  void set(std::uint64_t n) noexcept {
    value_.store(n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t read() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};
static_assert(sizeof(counter) == 8 && std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace sluice::abi
