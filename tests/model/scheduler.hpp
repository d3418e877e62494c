// SPDX-License-Identifier: Apache-2.0
// A small model checker: runs threads of real code one step at a time, over all
// interleavings of their atomic operations.
//
// Threads are fibers of one real thread. Every operation of model_atom is a scheduling
// point: there the checker decides who goes on. It explores all sequences of decisions,
// shortest first, each by running the program again from the start, and goes no further
// where it reaches a state that it has been in before. A failure comes with a shortest
// trace.
//
// A state is: all shared memory (the program hashes it), and for each thread what it has
// seen since it last called note(), where it says what its local state is. So a thread may
// loop for ever and the exploration still ends.
//
// Limits: sequentially consistent interleavings only: it does not reorder relaxed,
// acquire or release operations. That side is checked by ThreadSanitizer
// (generation_threads_test.cpp). Safety, not liveness.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace sluice::model {

class scheduler {
 public:
  // A program sets its shared memory up anew and returns its threads; called for each run.
  struct program {
    std::vector<std::function<void()>> threads;
    std::vector<bool> may_die;                    // threads that may be killed at any point
    std::function<std::uint64_t()> shared_state;  // hash of all shared memory
    std::function<void(std::size_t)> died = {};   // told of a killed thread
  };

  struct result {
    std::string failure;  // empty: no interleaving breaks a promise
    std::uint64_t states{0};
    std::uint64_t runs{0};
    std::size_t longest{0};          // decisions in the longest run
    std::vector<std::string> trace;  // of the failing run
  };

  // explore() runs `make` over all interleavings, up to max_states.
  static result explore(const std::function<program()>& make, std::uint64_t max_states) {
    scheduler s;
    current() = &s;
    result r;
    s.nodes_.push_back({0, 0, 0});
    for (std::size_t at = 0; at < s.nodes_.size() && r.failure.empty(); ++at) {
      ++r.runs;
      s.take_sequence(at);
      r.longest = std::max(r.longest, s.sequence_.size());
      s.run(make(), at);
      r.failure = s.failure_;
      if (s.visited_.size() > max_states)
        r.failure = "more than " + std::to_string(max_states) + " states: not explored fully";
    }
    if (!r.failure.empty()) r.trace = s.trace_;
    r.states = s.visited_.size();
    current() = nullptr;
    return r;
  }

  // The following are called by the threads under test.

  // point() lets the checker decide who goes on; the operation that follows is atomic.
  static void point(const char* what) {
    scheduler& s = *current();
    thread& t = s.threads_[s.running_];
    t.next_operation = what;
    t.history = mix(t.history + 1);  // having come here is a change of state, too
    s.switch_to_checker();
  }
  // saw() mixes a value that the thread has seen into its state.
  static void saw(std::uint64_t value) {
    thread& t = current()->threads_[current()->running_];
    t.history = mix(t.history ^ mix(value + 0x51));
  }
  // note() says: from here on, the thread's behaviour depends on this position and value
  // only (and on what it sees from now on).
  static void note(std::uint64_t position, std::uint64_t value) {
    current()->threads_[current()->running_].history = mix(mix(position + 1) ^ value);
  }
  // choose() returns every number below n, each in some run.
  static unsigned choose(unsigned n) {
    scheduler& s = *current();
    const unsigned c = s.decide(n);
    if (s.cut_) s.switch_to_checker();  // does not come back
    saw(0x100 + c);
    return c;
  }
  // require() ends the exploration with a failure if a promise is broken.
  static void require(bool held, const char* promise) {
    if (held) return;
    scheduler& s = *current();
    if (s.failure_.empty()) s.failure_ = promise;
    s.switch_to_checker();  // does not come back
  }

  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }

 private:
  static constexpr std::size_t stack_bytes = 128 * 1024;

  struct thread {
    ucontext_t context{};
    std::function<void()> body;
    std::uint64_t history{0};
    const char* next_operation{"start"};
    bool done{false};
    bool dead{false};
  };
  // node: a sequence of decisions, as the last one and what came before.
  struct node {
    std::size_t before;
    unsigned decision;
    unsigned length;
  };

  static scheduler*& current() {
    static scheduler* s = nullptr;
    return s;
  }

  void run(const program& p, std::size_t at) {
    threads_.clear();
    threads_.resize(p.threads.size());
    while (stacks_.size() < p.threads.size())
      stacks_.push_back(std::make_unique<std::byte[]>(stack_bytes));
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      thread& t = threads_[i];
      t.body = p.threads[i];
      ::getcontext(&t.context);
      t.context.uc_stack.ss_sp = stacks_[i].get();
      t.context.uc_stack.ss_size = stack_bytes;
      t.context.uc_link = nullptr;
      ::makecontext(&t.context, &scheduler::enter, 0);
    }
    depth_ = 0;
    cut_ = false;
    at_ = at;
    trace_.clear();
    while (failure_.empty() && !cut_) {
      // At the end of the sequence: a new state, or one that others go on from.
      if (depth_ == sequence_.size() && !visited_.insert(state(p)).second) return;
      options_.clear();
      for (std::size_t i = 0; i < threads_.size(); ++i) {
        if (threads_[i].done || threads_[i].dead) continue;
        options_.push_back({i, false});
        if (p.may_die[i]) options_.push_back({i, true});
      }
      if (options_.empty()) return;
      const unsigned d = decide(static_cast<unsigned>(options_.size()));
      if (cut_) return;
      const option o = options_[d];
      thread& t = threads_[o.which];
      trace_.push_back("thread " + std::to_string(o.which) + ": " +
                       (o.kill ? "dies" : t.next_operation));
      if (o.kill) {
        t.dead = true;
        if (p.died) p.died(o.which);
        continue;
      }
      running_ = o.which;
      switch_to(t);
    }
  }

  std::uint64_t state(const program& p) const {
    std::uint64_t h = p.shared_state();
    for (const thread& t : threads_) h = mix(h ^ (t.done ? 1 : t.dead ? 2 : mix(t.history + 3)));
    return h;
  }

  // decide() repeats the decisions of the sequence being run. Where it ends, all ways to
  // go on are put into the queue, and this run is over.
  unsigned decide(unsigned of) {
    if (depth_ < sequence_.size()) {
      const unsigned d = sequence_[depth_++];
      if (d >= of) throw std::logic_error("the program under test is not deterministic");
      return d;
    }
    for (unsigned d = 0; d < of; ++d)
      nodes_.push_back({at_, d, static_cast<unsigned>(sequence_.size() + 1)});
    cut_ = true;
    return 0;
  }
  void take_sequence(std::size_t at) {
    sequence_.resize(nodes_[at].length);
    for (std::size_t i = sequence_.size(); i > 0; --i, at = nodes_[at].before)
      sequence_[i - 1] = nodes_[at].decision;
  }

  static void enter() {
    scheduler& s = *current();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &s.checker_stack_, &s.checker_stack_bytes_);
#endif
    thread& t = s.threads_[s.running_];
    t.body();
    t.done = true;
    s.switch_to_checker();
  }

  void switch_to(thread& t) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, t.context.uc_stack.ss_sp, stack_bytes);
#endif
    ::swapcontext(&checker_, &t.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }
  void switch_to_checker() {
    thread& t = threads_[running_];
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, checker_stack_, checker_stack_bytes_);
#endif
    ::swapcontext(&t.context, &checker_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &checker_stack_, &checker_stack_bytes_);
#endif
  }

  struct option {
    std::size_t which;
    bool kill;
  };

  ucontext_t checker_{};
  std::vector<thread> threads_;
  std::vector<std::unique_ptr<std::byte[]>> stacks_;
  std::vector<option> options_;
  std::size_t running_{0};
  std::vector<node> nodes_;
  std::vector<unsigned> sequence_;
  std::size_t at_{0};
  bool cut_{false};
  std::size_t depth_{0};
  std::unordered_set<std::uint64_t> visited_;
  std::string failure_;
  std::vector<std::string> trace_;
  [[maybe_unused]] const void* checker_stack_{nullptr};
  [[maybe_unused]] std::size_t checker_stack_bytes_{0};
};

// model_atom stands in for std::atomic in the code under test.
template <class T>
class model_atom {
 public:
  model_atom() = default;
  model_atom(T v) : value_{v} {}  // NOLINT: as std::atomic
  T load(std::memory_order = std::memory_order_seq_cst) const {
    scheduler::point("load");
    scheduler::saw(number(value_));
    return value_;
  }
  void store(T v, std::memory_order = std::memory_order_seq_cst) {
    scheduler::point("store");
    scheduler::saw(0x57);
    value_ = v;
  }
  // peek() and poke(): for the checker itself, no scheduling point.
  [[nodiscard]] T peek() const { return value_; }
  void poke(T v) { value_ = v; }

 private:
  // Pointers are the same in every run if what they point to is (static storage).
  static std::uint64_t number(const T& v) {
    if constexpr (std::is_pointer_v<T>)
      return reinterpret_cast<std::uintptr_t>(v);
    else
      return static_cast<std::uint64_t>(v);
  }
  T value_{};
};

}  // namespace sluice::model
