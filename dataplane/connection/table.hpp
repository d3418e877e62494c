// SPDX-License-Identifier: Apache-2.0
// connection_table: one worker's connections of both families, over the memory of a
// connection table file (abi/connection_layout.hpp). Only the worker's thread may call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/flow_map.hpp"

namespace sluice::connection {

class connection_table {
 public:
  // file: mapped, with a header that is right (table_file.hpp creates and checks it).
  // Neither copies nor owns it. Call recount() if the table was used before.
  explicit connection_table(std::byte* file) noexcept
      : connection_table{file, *reinterpret_cast<const abi::connection_header*>(file)} {}

  flow_map<ipv4> v4;
  flow_map<ipv6> v6;

  // clock() is the table's time for CLOCK_MONOTONIC in ns: what words are stamped with.
  [[nodiscard]] std::uint16_t clock(std::uint64_t monotonic_ns) const noexcept {
    return static_cast<std::uint16_t>((monotonic_ns - clock_base_ns_) / 1'000'000'000u);
  }

  void set_timeouts(const timeout_table& t) noexcept {
    v4.set_timeouts(t);
    v6.set_timeouts(t);
  }
  void recount() noexcept {
    v4.recount();
    v6.recount();
  }
  // repair() returns how many entries had to go; see flow_map::repair().
  std::uint64_t repair() noexcept { return v4.repair() + v6.repair(); }
  [[nodiscard]] std::uint64_t size() const noexcept { return v4.size() + v6.size(); }

 private:
  connection_table(std::byte* file, const abi::connection_header& h) noexcept
      : v4{file + h.offset4, h.buckets4, {h.secret[0], h.secret[1]}},
        v6{file + h.offset6, h.buckets6, {h.secret[0], h.secret[1]}},
        clock_base_ns_{h.clock_base_ns} {}

  std::uint64_t clock_base_ns_;
};

// sweeper: spreads the sweep of a whole table over `period_s` seconds, in small steps
// between two bursts. Call step() as often as convenient with the monotonic time.
class sweeper {
 public:
  static constexpr std::uint64_t default_period_s = 10;  // << 32768 s, see flow_map.hpp
  static constexpr std::uint64_t max_step = 32;          // buckets per call: about 1 us when cold

  // begin_round() has the next steps go over the whole table as fast as they may. Twice: an
  // entry may move from a bucket to come to one that was looked at.
  void begin_round(const connection_table& table) noexcept {
    round4_ = 2 * table.v4.bucket_count();
    round6_ = 2 * table.v6.bucket_count();
  }

  // step() sweeps what has become due, at most max_step buckets of each family, and calls
  // gone(connection_word) for every connection that it removes: what is expired, and what
  // also(connection_word) says.
  template <class Also, class Gone>
  void step(connection_table& table, std::uint64_t monotonic_ns, Also&& also,
            Gone&& gone) noexcept {
    if (last_ns_ == 0) last_ns_ = monotonic_ns;
    const std::uint64_t elapsed = monotonic_ns - last_ns_;
    // A millisecond at the least, so that the division is rare.
    if (elapsed < 1'000'000 && due4_ == 0 && due6_ == 0 && round4_ == 0 && round6_ == 0) return;
    if (elapsed >= 1'000'000) {
      last_ns_ = monotonic_ns;
      due(table.v4.bucket_count(), elapsed, carry4_, due4_);
      due(table.v6.bucket_count(), elapsed, carry6_, due6_);
    }
    const std::uint16_t now = table.clock(monotonic_ns);
    step_of(table.v4, now, at4_, due4_, round4_, also, gone);
    step_of(table.v6, now, at6_, due6_, round6_, also, gone);
  }

 private:
  template <class Map, class Also, class Gone>
  static void step_of(Map& map, std::uint16_t now, std::uint64_t& at, std::uint64_t& due_now,
                      std::uint64_t& round, Also& also, Gone& gone) noexcept {
    const std::uint64_t wanted = due_now > round ? due_now : round;
    const std::uint64_t n = wanted < max_step ? wanted : max_step;
    at = map.erase_if(
        at, n, [&](abi::connection_word w) { return map.expired(w, now) || also(w); }, gone);
    due_now -= n < due_now ? n : due_now;
    round -= n < round ? n : round;
  }

  static void due(std::uint64_t buckets, std::uint64_t elapsed_ns, std::uint64_t& carry,
                  std::uint64_t& out) noexcept {
    // Buckets * microseconds per period, the remainder carried over. A worker that was
    // stopped for long owes one round at most.
    const std::uint64_t us = elapsed_ns / 1000 < default_period_s * 1'000'000
                                 ? elapsed_ns / 1000
                                 : default_period_s * 1'000'000;
    const std::uint64_t work = buckets * us + carry;
    out += work / (default_period_s * 1'000'000);
    carry = work % (default_period_s * 1'000'000);
    if (out > buckets) out = buckets;
  }

  std::uint64_t last_ns_{0};
  std::uint64_t at4_{0}, at6_{0};
  std::uint64_t due4_{0}, due6_{0};
  std::uint64_t carry4_{0}, carry6_{0};
  std::uint64_t round4_{0}, round6_{0};  // buckets left of a round
};

}  // namespace sluice::connection
