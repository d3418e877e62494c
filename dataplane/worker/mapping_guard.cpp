// SPDX-License-Identifier: Apache-2.0
#include "dataplane/worker/mapping_guard.hpp"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace sluice {
namespace {

constexpr std::uintptr_t page = 4096;
constexpr std::size_t slots = 16;

struct range {
  std::atomic<bool> taken{false};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};  // 0: nothing is guarded here
  std::atomic<bool> faulted{false};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free);  // for the signal handler

std::array<range, slots> ranges;
struct sigaction before;

// In any thread, between any two instructions: mmap() is a bare system call.
void on_sigbus(int signal, siginfo_t* info, void*) {
  const int kept_errno = errno;
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (info->si_code == BUS_ADRERR) {
    for (range& r : ranges) {
      const std::uintptr_t end = r.end.load(std::memory_order_acquire);
      if (end == 0 || at < r.begin.load(std::memory_order_relaxed) || at >= end) continue;
      void* const gone = reinterpret_cast<void*>(at / page * page);
      if (::mmap(gone, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED)
        break;
      r.faulted.store(true, std::memory_order_relaxed);
      errno = kept_errno;
      return;
    }
  }
  // Not ours: the instruction runs again, and this time it is as if we had not been here.
  ::sigaction(signal, &before, nullptr);
  errno = kept_errno;
}

}  // namespace

bool mapping_guard::install() noexcept {
  static std::atomic<bool> done{false};
  if (done.exchange(true)) return true;
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO;
  ::sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &before) == 0;
}

mapping_guard::mapping_guard(const std::byte* data, std::size_t size) noexcept : slot_{slots} {
  for (std::size_t i = 0; i < slots && slot_ == slots; ++i)
    if (!ranges[i].taken.exchange(true)) slot_ = i;
  if (slot_ == slots) return;
  range& r = ranges[slot_];
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  r.faulted.store(false, std::memory_order_relaxed);
  r.begin.store(begin, std::memory_order_relaxed);
  r.end.store(begin + size, std::memory_order_release);  // last: see on_sigbus()
}

mapping_guard::~mapping_guard() {
  if (slot_ == slots) return;
  ranges[slot_].end.store(0, std::memory_order_release);
  ranges[slot_].taken.store(false, std::memory_order_release);
}

bool mapping_guard::faulted() const noexcept {
  return slot_ != slots && ranges[slot_].faulted.load(std::memory_order_relaxed);
}

}  // namespace sluice
