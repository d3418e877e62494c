// SPDX-License-Identifier: Apache-2.0
// The publish protocol of abi/generation.hpp over all (sequentially consistent)
// interleavings: one writer that publishes several generations into two or three slots
// as the control plane does, two readers that start, poll, read, stop, start again, and
// die at any point. Promise: no reader reads a slot that is being overwritten or holds
// another generation than the one it was given.
//
// The checker must be able to fail: each mutation below breaks the protocol in one place,
// and must be found.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>

#include "dataplane/abi/generation.hpp"
#include "tests/model/scheduler.hpp"

namespace sluice::model {
namespace {

using abi::generation_word;
template <class T>
using atom = model_atom<T>;
using cell = abi::epoch_cell<model_atom>;
using protocol_reader = abi::generation_reader<model_atom>;
using protocol_writer = abi::generation_writer<model_atom>;

enum class mutation {
  none,
  load_before_online,    // start() reads `current` and only then says that it is there
  epoch_before_load,     // poll() reports a newer one and only then looks whether there is one
  report_while_reading,  // the reader polls before it is done with the old slot
  stop_while_reading,    // the reader goes offline before it is done with the slot
  no_wait,               // the writer reuses slots at once
  wait_for_too_little,   // the writer waits for one generation less than it must
  check_before_publish,  // the writer looks for readers, then publishes, then overwrites
};

constexpr std::size_t most_readers = 2;

struct world {
  atom<std::uint64_t> current{0};
  std::array<cell, most_readers> cells{};
  std::array<bool, most_readers> gone{};  // the lock of the observation segment was released
  struct slot {
    std::uint64_t generation{0};
    bool being_written{false};
  };
  std::array<slot, 3> slots{};
  std::uint64_t published{0};
};

// start() and poll(): the real ones, or one with the fault.
generation_word start(world& w, std::size_t me, mutation m) {
  if (m != mutation::load_before_online) return protocol_reader::start(w.cells[me], w.current);
  w.cells[me].epoch.store(0);
  const generation_word now{w.current.load()};
  w.cells[me].online.store(1);
  w.cells[me].epoch.store(now.number());
  return now;
}
generation_word poll(world& w, std::size_t me, generation_word held, mutation m) {
  if (m != mutation::epoch_before_load) return protocol_reader::poll(w.cells[me], w.current, held);
  w.cells[me].epoch.store(held.number() + 1);
  return generation_word{w.current.load()};
}

// read() reads a slot in two steps, as a burst does that lasts.
void read_first(world& w, generation_word held) {
  scheduler::point("read slot, begin");
  const auto& s = w.slots[held.slot()];
  scheduler::require(!s.being_written && s.generation == held.number(),
                     "a reader begins to read a slot that is not its generation's");
}
void read_last(world& w, generation_word held) {
  scheduler::point("read slot, end");
  const auto& s = w.slots[held.slot()];
  scheduler::require(!s.being_written && s.generation == held.number(),
                     "a slot was overwritten while a reader read it");
}

void reader(world& w, std::size_t me, mutation m) {
  enum : std::uint64_t { offline = 10, holding = 11 };
  for (;;) {
    scheduler::note(offline, 0);
    generation_word held = start(w, me, m);
    for (;;) {
      scheduler::note(holding, held.value);
      const bool stop = scheduler::choose(2) == 1;
      if (!held.none()) read_first(w, held);
      generation_word next = held;
      if (m == mutation::report_while_reading) next = poll(w, me, held, m);
      if (m == mutation::stop_while_reading && stop) protocol_reader::stop(w.cells[me]);
      if (!held.none()) read_last(w, held);
      if (stop) break;
      held = m == mutation::report_while_reading ? next : poll(w, me, held, m);
    }
    if (m != mutation::stop_while_reading) protocol_reader::stop(w.cells[me]);
  }
}

// all_newer() is the control plane's question: nobody alive uses a generation < number.
bool all_newer(world& w, std::uint64_t number) {
  // One range per reader, as the data plane whose lock is gone is left out.
  for (std::size_t i = 0; i < most_readers; ++i) {
    scheduler::point("is the reader's process there?");
    scheduler::saw(w.gone[i]);
    if (w.gone[i]) continue;
    struct one {
      const cell* c;
      [[nodiscard]] const cell* begin() const { return c; }
      [[nodiscard]] const cell* end() const { return c + 1; }
    };
    if (!protocol_writer::quiescent(one{&w.cells[i]}, number)) return false;
  }
  return true;
}

void writer(world& w, std::uint64_t generations, unsigned slots, mutation m) {
  for (std::uint64_t g = 1; g <= generations; ++g) {
    const auto slot = static_cast<unsigned>(g % slots);
    // The slot holds generation g - slots; everybody must have reported a newer one.
    bool used = g > slots;
    std::uint64_t needed = used ? g - slots + 1 : 0;
    if (m == mutation::no_wait) used = false;
    if (m == mutation::wait_for_too_little && needed > 0) --needed;
    if (m == mutation::check_before_publish) used = false;
    do {
      scheduler::note(100 + g, 0);
    } while (used && !all_newer(w, needed));
    scheduler::note(200 + g, 0);
    scheduler::point("overwrite slot, begin");
    w.slots[slot].being_written = true;
    scheduler::point("overwrite slot, end");
    w.slots[slot] = {g, false};
    if (m == mutation::check_before_publish && g + 1 > slots) {
      // Looks whether the next slot will be free before the new generation is out.
      do {
        scheduler::note(300 + g, 0);
      } while (!all_newer(w, g + 1 - slots));
    }
    protocol_writer::publish(w.current, generation_word::make(g, slot));
    w.published = std::max(w.published, g);
  }
}

struct outcome {
  scheduler::result result;
  std::uint64_t published;  // the most generations that any run got out
};

// check() explores with one reader or two (the other never starts).
outcome check(unsigned slots, std::uint64_t generations, mutation m, unsigned readers) {
  std::uint64_t most = 0;
  std::unique_ptr<world> w;
  const auto make = [&]() -> scheduler::program {
    if (w != nullptr) most = std::max(most, w->published);
    w = std::make_unique<world>();
    world& here = *w;
    scheduler::program p{
        .threads = {[&here, generations, slots, m] { writer(here, generations, slots, m); }},
        .may_die = {false},
        .shared_state =
            [&here] {
              std::uint64_t h = here.current.peek();
              for (std::size_t i = 0; i < most_readers; ++i) {
                h = scheduler::mix(h ^ here.cells[i].online.peek());
                h = scheduler::mix(h ^ here.cells[i].epoch.peek());
                h = scheduler::mix(h ^ std::uint64_t{here.gone[i]});
              }
              for (const auto& s : here.slots)
                h = scheduler::mix(h ^ (s.generation << 1 | std::uint64_t{s.being_written}));
              return h;
            },
        .died = [&here](std::size_t i) { here.gone[i - 1] = true; },
    };
    for (unsigned i = 0; i < readers; ++i) {
      p.threads.emplace_back([&here, i, m] { reader(here, i, m); });
      p.may_die.push_back(true);
    }
    return p;
  };
  const outcome o{scheduler::explore(make, 3'000'000), 0};
  return {o.result, std::max(most, w->published)};
}

void expect_holds(const char* what, unsigned slots, std::uint64_t generations) {
  const outcome o = check(slots, generations, mutation::none, 2);
  std::printf("%s: %lu states, %lu runs, deepest %zu decisions\n", what,
              static_cast<unsigned long>(o.result.states),
              static_cast<unsigned long>(o.result.runs), o.result.longest);
  EXPECT_EQ(o.result.failure, "");
  for (const std::string& step : o.result.trace) std::printf("  %s\n", step.c_str());
  EXPECT_EQ(o.published, generations) << "no run published everything: nothing was checked";
  EXPECT_GT(o.result.states, 1000u);
}

TEST(generation_model, ThreeSlots) {
  expect_holds("3 slots, 5 generations", 3, 5);
}
TEST(generation_model, TwoSlots) {
  expect_holds("2 slots, 4 generations", 2, 4);
}

class broken : public ::testing::TestWithParam<mutation> {};

TEST_P(broken, IsFound) {
  for (const unsigned slots : {2u, 3u}) {
    const outcome o = check(slots, slots + 2, GetParam(), 1);
    EXPECT_TRUE(o.result.failure.starts_with("a ")) << slots << " slots: " << o.result.failure;
    EXPECT_FALSE(o.result.trace.empty());
    std::printf("%u slots: found after %lu states: %s\n", slots,
                static_cast<unsigned long>(o.result.states), o.result.failure.c_str());
  }
}
INSTANTIATE_TEST_SUITE_P(mutations, broken,
                         ::testing::Values(mutation::load_before_online,
                                           mutation::epoch_before_load,
                                           mutation::report_while_reading,
                                           mutation::stop_while_reading, mutation::no_wait,
                                           mutation::wait_for_too_little,
                                           mutation::check_before_publish));

// A reader that was killed while it held a slot must not stop the writer for ever: with
// deaths, all generations get out even if no reader polls again.
TEST(generation_model, DeathDoesNotBlockTheWriter) {
  auto w = std::make_unique<world>();
  const auto make = [&]() -> scheduler::program {
    *w = world{};
    return {.threads = {[&] { (void)protocol_reader::start(w->cells[0], w->current); },
                        [&] { writer(*w, 4, 2, mutation::none); }},
            .may_die = {true, false},
            .shared_state =
                [&] {
                  return scheduler::mix(w->current.peek()) ^ w->published ^
                         w->cells[0].epoch.peek() << 8 ^ w->cells[0].online.peek() << 16 ^
                         std::uint64_t{w->gone[0]} << 17;
                },
            .died = [&](std::size_t) { w->gone[0] = true; }};
  };
  std::uint64_t with_death = 0;
  const auto counting = [&]() -> scheduler::program {
    if (w->gone[0] && w->cells[0].online.peek() == 1)
      with_death = std::max(with_death, w->published);
    return make();
  };
  const auto r = scheduler::explore(counting, 1'000'000);
  EXPECT_EQ(r.failure, "");
  EXPECT_EQ(with_death, 4u);
}

}  // namespace
}  // namespace sluice::model
