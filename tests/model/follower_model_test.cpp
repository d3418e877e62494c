// SPDX-License-Identifier: Apache-2.0
// What a worker really does (dataplane/worker/table_follower.hpp, with its peek() and
// report()), over all (sequentially consistent) interleavings with the control plane that
// publishes, generations that are refused, and the housekeeping thread that replaces one
// segment by another and unmaps the old one. Promises: no worker looks into a slot that is
// being overwritten or holds another generation than it believes; none touches a segment
// that is unmapped; a refused generation does not free the one before.
//
// The checker must be able to fail: each mutation breaks the follower or its surroundings
// in one place, and must be found.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "dataplane/abi/generation.hpp"
#include "dataplane/worker/table_follower.hpp"
#include "tests/model/scheduler.hpp"

namespace sluice::model {
namespace {

using abi::generation_word;
template <class T>
using atom = model_atom<T>;
using cell = abi::epoch_cell<model_atom>;
using reader = abi::generation_reader<model_atom>;
using writer = abi::generation_writer<model_atom>;

// 64 bits wide so that the followers have no padding: see remembered().
enum class mutation : std::uint64_t {
  none,
  report_before_check,   // reports a generation, and only then finds that it is bad
  report_refused,        // reports a generation that it refuses
  report_without_start,  // in a new segment it goes on with the epoch of the old one
  view_kept_on_change,   // goes on with the old segment's tables while the new one has none
  no_second_look,        // says what it uses, but does not look whether that is still wanted
  in_use_late,           // says what it uses after it has begun to
  unmap_at_once,         // housekeeping does not ask who uses the old segment
};

// segment stands in for attached_config.
struct segment {
  struct slot {
    std::uint64_t generation{0};
    bool being_written{false};
    bool good{true};
  };
  struct view {
    const segment* of{nullptr};
    unsigned slot{0};
    struct {
      std::uint64_t number{0};
    } head;
    [[nodiscard]] const auto& header() const { return head; }
    [[nodiscard]] bool empty() const { return of == nullptr; }
  };

  atom<std::uint64_t> published{0};
  std::array<slot, 3> slots{};
  bool mapped{true};

  [[nodiscard]] const atom<std::uint64_t>& current() const {
    scheduler::require(mapped, "a worker reads an unmapped segment's word");
    return published;
  }
  bool open(unsigned at, view& out) const {
    look(at, nullptr);
    out = {this, at, {slots[at].generation}};
    scheduler::saw(slots[at].generation << 1 | std::uint64_t{slots[at].good});
    return slots[at].good;
  }
  // look() is an access to a slot, as a step of its own.
  void look(unsigned at, const std::uint64_t* expected) const {
    scheduler::point("read slot");
    scheduler::require(mapped, "a worker reads an unmapped segment");
    scheduler::require(!slots[at].being_written, "a worker reads a slot that is being overwritten");
    scheduler::require(expected == nullptr || slots[at].generation == *expected,
                       "a worker reads another generation than it believes");
  }
  [[nodiscard]] std::uint64_t hash() const {
    std::uint64_t h = scheduler::mix(published.peek() << 1 | std::uint64_t{mapped});
    for (const slot& s : slots)
      h = scheduler::mix(
          h ^ (s.generation << 2 | std::uint64_t{s.being_written} << 1 | std::uint64_t{s.good}));
    return h;
  }
  void hold(std::uint64_t number, unsigned at) {
    slots[at].generation = number;
    published.poke(generation_word::make(number, at).value);
  }
};

using real_follower = basic_table_follower<model_atom, segment>;

// faulty_follower is the follower once more, with a place for each fault.
class faulty_follower {
 public:
  faulty_follower(cell& c, const atom<const segment*>& wanted, mutation m)
      : cell_{c}, wanted_{wanted}, m_{m} {}

  template <class SetView>
  void poll(SetView&& set_view) {
    const segment* wanted = wanted_.load();
    if (wanted != held_) return change(wanted, set_view);
    if (held_ == nullptr) return;
    const generation_word now = reader::peek(held_->current());
    if (now.none() || now == current_ || now == refused_) return;
    if (m_ == mutation::report_before_check) reader::report(cell_, now);
    segment::view view;
    if (!opened(now, view)) {
      refused_ = now;
      if (m_ == mutation::report_refused) reader::report(cell_, now);
      return;
    }
    set_view(view);
    if (m_ != mutation::report_before_check) reader::report(cell_, now);
    current_ = now;
  }
  void stop() {
    reader::stop(cell_);
    held_ = nullptr;
    in_use_.store(nullptr);
  }
  [[nodiscard]] const segment* in_use() const { return in_use_.load(); }

 private:
  template <class SetView>
  void change(const segment* wanted, SetView& set_view) {
    if (held_ != nullptr) {
      if (m_ != mutation::view_kept_on_change) set_view(segment::view{});
      if (m_ != mutation::report_without_start) reader::stop(cell_);
    }
    const bool started_before = held_ != nullptr;
    if (m_ != mutation::in_use_late) {
      for (;;) {
        in_use_.store(wanted);
        if (m_ == mutation::no_second_look) break;
        const segment* const still = wanted_.load();
        if (still == wanted) break;
        wanted = still;
      }
    }
    held_ = wanted;
    current_ = refused_ = {};
    if (wanted == nullptr) return;
    generation_word now;
    if (m_ == mutation::report_without_start && started_before) {
      now = reader::peek(wanted->current());
      if (!now.none()) reader::report(cell_, now);
    } else {
      now = reader::start(cell_, wanted->current());
    }
    if (m_ == mutation::in_use_late) in_use_.store(wanted);
    if (now.none()) return;
    segment::view view;
    if (!opened(now, view)) {
      refused_ = now;
      return;
    }
    set_view(view);
    current_ = now;
  }
  bool opened(generation_word now, segment::view& view) const {
    return held_->open(now.slot(), view) && view.header().number == now.number();
  }

  cell& cell_;
  const atom<const segment*>& wanted_;
  mutation m_;
  const segment* held_{nullptr};
  generation_word current_{};
  generation_word refused_{};
  atom<const segment*> in_use_{nullptr};
};

constexpr std::size_t most_workers = 2;

template <class Follower>
struct world {
  std::array<segment, 3> segments{};
  atom<const segment*> wanted{nullptr};
  std::array<cell, most_workers> cells{};
  std::array<std::optional<Follower>, most_workers> followers{};
  std::array<bool, most_workers> saw_last{};
  segment* filled{nullptr};  // the one that the control plane publishes into
};

// remembered() hashes all that a follower knows, whatever its members are: words without
// padding, and pointers to static storage.
template <class Follower>
std::uint64_t remembered(const Follower& f) {
  std::array<std::uint64_t, sizeof f / 8> words;
  static_assert(sizeof words == sizeof f);
  std::memcpy(words.data(), static_cast<const void*>(&f), sizeof f);
  std::uint64_t h = 0;
  for (const std::uint64_t word : words) h = scheduler::mix(h ^ word);
  return h;
}

// worker: bursts, each of which reads the tables twice, and polls between them.
template <class Follower>
void worker(world<Follower>& w, std::size_t me, std::uint64_t last) {
  Follower& follower = *w.followers[me];
  segment::view view;
  for (;;) {
    const auto of = static_cast<std::uint64_t>(view.empty() ? 0 : 1 + (view.of - &w.segments[0]));
    scheduler::note(me, of << 16 | std::uint64_t{view.slot} << 8 | view.head.number);
    if (!view.empty()) {
      view.of->look(view.slot, &view.head.number);
      view.of->look(view.slot, &view.head.number);
      if (view.of == w.filled && view.head.number == last) w.saw_last[me] = true;
    }
    follower.poll([&view](const segment::view& v) { view = v; });
  }
}

// control_plane publishes 1..generations into a segment's `slots` slots.
template <class Follower>
void control_plane(world<Follower>& w, std::uint64_t generations, unsigned slots,
                   std::uint64_t bad) {
  segment& s = *w.filled;
  for (std::uint64_t g = 1; g <= generations; ++g) {
    const auto at = static_cast<unsigned>(g % slots);
    do {
      scheduler::note(100 + g, 0);
    } while (g > slots && !writer::quiescent(w.cells, g - slots + 1));
    scheduler::note(200 + g, 0);
    scheduler::point("overwrite slot, begin");
    s.slots[at].being_written = true;
    scheduler::point("overwrite slot, end");
    s.slots[at] = {g, false, g != bad};
    writer::publish(s.published, generation_word::make(g, at));
  }
}

// housekeeping replaces segment 0 by 1 by 2 and unmaps what no worker uses.
template <class Follower>
void housekeeping(world<Follower>& w, unsigned workers, mutation m) {
  for (std::size_t next = 1; next < w.segments.size(); ++next) {
    segment& old = w.segments[next - 1];
    scheduler::note(300 + next, 0);
    w.wanted.store(&w.segments[next]);
    if (m != mutation::unmap_at_once)
      for (bool used = true; used;) {
        scheduler::note(400 + next, 0);
        used = false;
        for (unsigned i = 0; i < workers; ++i) used |= w.followers[i]->in_use() == &old;
      }
    scheduler::point("unmap");
    old.mapped = false;
  }
}

struct plan {
  unsigned workers;
  unsigned slots;
  std::uint64_t generations;
  std::uint64_t bad;  // this one does not pass the workers' checks; 0: all do
  bool replace;       // three segments: one that has number 50, one being filled, one with 7
};

struct outcome {
  scheduler::result result;
  bool saw_last{false};
};

template <class Follower>
outcome check(const plan& p, mutation m) {
  static world<Follower> w;  // one place for all runs: pointers are part of the states
  outcome o;
  const auto make = [&]() -> scheduler::program {
    for (unsigned i = 0; i < p.workers; ++i) o.saw_last |= w.saw_last[i];
    std::destroy_at(&w);
    std::construct_at(&w);
    for (unsigned i = 0; i < p.workers; ++i) {
      if constexpr (std::is_same_v<Follower, real_follower>)
        w.followers[i].emplace(w.cells[i], w.wanted);
      else
        w.followers[i].emplace(w.cells[i], w.wanted, m);
    }
    w.wanted.poke(&w.segments[0]);
    w.filled = &w.segments[p.replace ? 1 : 0];
    scheduler::program made;
    made.threads.push_back([&p] { control_plane(w, p.generations, p.slots, p.bad); });
    if (p.replace) {
      w.segments[0].hold(50, 1);
      w.segments[2].hold(7, 2);
      made.threads.push_back([&p, m] { housekeeping(w, p.workers, m); });
    }
    for (unsigned i = 0; i < p.workers; ++i)
      made.threads.push_back([i, &p] { worker(w, i, p.generations); });
    made.may_die.assign(made.threads.size(), false);
    made.shared_state = [&p] {
      std::uint64_t h = scheduler::mix(reinterpret_cast<std::uintptr_t>(w.wanted.peek()));
      for (const segment& s : w.segments) h = scheduler::mix(h ^ s.hash());
      for (unsigned i = 0; i < p.workers; ++i) {
        h = scheduler::mix(h ^ (w.cells[i].online.peek() << 32 | w.cells[i].epoch.peek()));
        h = scheduler::mix(h ^ remembered(*w.followers[i]));
      }
      return h;
    };
    return made;
  };
  o.result = scheduler::explore(make, 3'000'000);
  for (unsigned i = 0; i < p.workers; ++i) o.saw_last |= w.saw_last[i];
  return o;
}

constexpr plan three_slots{2, 3, 4, 2, false};
constexpr plan two_slots{2, 2, 4, 0, false};
constexpr plan first_is_bad{2, 2, 3, 1, false};
constexpr plan replaced{1, 2, 3, 0, true};

template <class Follower>
void expect_holds(const char* what, const plan& p) {
  const outcome o = check<Follower>(p, mutation::none);
  std::printf("%s: %lu states, %lu runs, deepest %zu decisions\n", what,
              static_cast<unsigned long>(o.result.states),
              static_cast<unsigned long>(o.result.runs), o.result.longest);
  EXPECT_EQ(o.result.failure, "") << what;
  for (const std::string& step : o.result.trace) std::printf("  %s\n", step.c_str());
  EXPECT_TRUE(o.saw_last) << what << ": no run got to the last generation: nothing was checked";
  EXPECT_GT(o.result.states, 1000u);
}

TEST(follower_model, ThreeSlotsOneBadGeneration) {
  expect_holds<real_follower>("3 slots, 4 generations", three_slots);
}
TEST(follower_model, TwoSlots) {
  expect_holds<real_follower>("2 slots, 4 generations", two_slots);
}
TEST(follower_model, TheFirstGenerationIsBad) {
  expect_holds<real_follower>("2 slots, first bad", first_is_bad);
}
TEST(follower_model, SegmentsAreReplaced) {
  expect_holds<real_follower>("three segments", replaced);
}
// What the mutations are mutations of.
TEST(follower_model, TheCopyWithoutFaultHolds) {
  expect_holds<faulty_follower>("copy, three segments", replaced);
}

class broken : public ::testing::TestWithParam<mutation> {};

TEST_P(broken, IsFound) {
  const bool of_refusal =
      GetParam() == mutation::report_before_check || GetParam() == mutation::report_refused;
  const outcome o =
      check<faulty_follower>(of_refusal ? plan{1, 3, 5, 2, false} : replaced, GetParam());
  EXPECT_TRUE(o.result.failure.starts_with("a worker reads")) << o.result.failure;
  EXPECT_FALSE(o.result.trace.empty());
  std::printf("found after %lu states: %s\n", static_cast<unsigned long>(o.result.states),
              o.result.failure.c_str());
}
INSTANTIATE_TEST_SUITE_P(mutations, broken,
                         ::testing::Values(mutation::report_before_check, mutation::report_refused,
                                           mutation::report_without_start,
                                           mutation::view_kept_on_change, mutation::no_second_look,
                                           mutation::in_use_late, mutation::unmap_at_once));

}  // namespace
}  // namespace sluice::model
