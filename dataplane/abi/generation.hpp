// SPDX-License-Identifier: Apache-2.0
// How a generation of tables reaches the workers, and when its slot may be reused.
//
// One writer (the control plane) stores the number of a finished slot in `current`.
// Each reader (a worker) takes it up at a quiescent point of its loop (between two
// bursts) and reports the generation that it uses in its `epoch`. A slot may be
// overwritten once every online reader has reported a generation newer than the
// slot's. Readers never wait; the writer waits, or tries again later.
//
// A reader that starts: it first says that it is online with epoch 0, and only then
// reads `current` (both seq_cst). The writer stores `current` and then looks for
// readers (both seq_cst). So either the writer sees the reader and waits for it, or
// the reader sees the new generation. tests/model interleaves this exhaustively.
//
// A reader that dies leaves its epoch behind: the writer is told by the lock on the
// observation segment that the process is gone, and ignores its readers.
//
// Atom is a parameter so that the tests can put a scheduler in its place.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::abi {

// generation_word: number (62 bits) and slot (2 bits). 0: nothing published yet.
struct generation_word {
  std::uint64_t value{0};

  static constexpr generation_word make(std::uint64_t number, unsigned slot) noexcept {
    return {number << 2 | (slot & 3u)};
  }
  [[nodiscard]] constexpr std::uint64_t number() const noexcept { return value >> 2; }
  [[nodiscard]] constexpr unsigned slot() const noexcept {
    return static_cast<unsigned>(value & 3u);
  }
  [[nodiscard]] constexpr bool none() const noexcept { return value == 0; }
  constexpr bool operator==(const generation_word&) const noexcept = default;
};

// epoch_cell: written by one reader, read by the writer. `online` 0: not reading.
// epoch 0 with online 1: starting, may hold any generation.
template <template <class> class Atom = std::atomic>
struct alignas(cache_line) epoch_cell {
  Atom<std::uint64_t> online{0};
  Atom<std::uint64_t> epoch{0};
};

// Reader side. One thread.
template <template <class> class Atom = std::atomic>
class generation_reader {
 public:
  // start() goes online and returns what to read now (none: nothing published).
  static generation_word start(epoch_cell<Atom>& cell,
                               const Atom<std::uint64_t>& current) noexcept {
    cell.epoch.store(0, std::memory_order_seq_cst);
    cell.online.store(1, std::memory_order_seq_cst);
    const generation_word now{current.load(std::memory_order_seq_cst)};
    // release pairs with the writer's acquire in quiescent(): our reads of an older
    // slot happen before it is overwritten.
    cell.epoch.store(now.number(), std::memory_order_release);
    return now;
  }
  // poll() is called at a quiescent point: nothing of the old generation is in use.
  static generation_word poll(epoch_cell<Atom>& cell, const Atom<std::uint64_t>& current,
                              generation_word held) noexcept {
    // acquire pairs with the release in publish(): the slot's content is visible.
    const generation_word now{current.load(std::memory_order_acquire)};
    if (now == held) return held;
    cell.epoch.store(now.number(), std::memory_order_release);
    return now;
  }
  // peek() and report() are poll() in two steps, for a reader that checks a generation
  // before it takes it up. In between it may look into the new slot: that is not
  // overwritten while the reader still reports an older generation. A reader that refuses
  // it does not report, and keeps what it has.
  static generation_word peek(const Atom<std::uint64_t>& current) noexcept {
    return {current.load(std::memory_order_acquire)};
  }
  static void report(epoch_cell<Atom>& cell, generation_word taken) noexcept {
    cell.epoch.store(taken.number(), std::memory_order_release);
  }
  static void stop(epoch_cell<Atom>& cell) noexcept {
    cell.online.store(0, std::memory_order_release);
  }
};

// Writer side. One thread at a time.
template <template <class> class Atom = std::atomic>
class generation_writer {
 public:
  // publish() makes `next` the current generation; its slot is complete.
  static void publish(Atom<std::uint64_t>& current, generation_word next) noexcept {
    current.store(next.value, std::memory_order_seq_cst);
  }
  // quiescent() tells whether no reader can still use a generation older than `number`.
  // An online reader that started before anything was published reports epoch 0 and
  // counts as using anything.
  template <class Cells>
  [[nodiscard]] static bool quiescent(const Cells& cells, std::uint64_t number) noexcept {
    for (const epoch_cell<Atom>& cell : cells) {
      if (cell.online.load(std::memory_order_seq_cst) == 0) continue;
      if (cell.epoch.load(std::memory_order_acquire) < number) return false;
    }
    return true;
  }
};

}  // namespace sluice::abi
