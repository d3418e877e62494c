// SPDX-License-Identifier: Apache-2.0
// One trial: frames at a rate out of one port for a time, and what comes back by the other. One
// thread does both, so sender's and receiver's clock are the same.
#pragma once

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "perf/throughput/latencies.hpp"
#include "perf/throughput/stamped_frames.hpp"

namespace sluice::perf {

struct trial_result {
  double wanted{0};           // packets per second; 0: as many as go
  double seconds{0};          // of sending
  std::uint64_t offered{0};   // written and given to the driver
  std::uint64_t accepted{0};  // by the driver: the rest found the ring full, and is lost
  std::uint64_t received{0};  // right packets of this trial
  std::uint64_t missed{0};    // should have been sent: the generator was too slow
  std::uint64_t gaps{0};      // numbers that were skipped, by flow
  std::array<std::uint64_t, static_cast<std::size_t>(fault::count_)> faults{};
  bool stopped{false};

  [[nodiscard]] std::uint64_t lost() const noexcept {
    return offered > received ? offered - received : 0;
  }
  [[nodiscard]] double loss() const noexcept {
    return offered == 0 ? 1.0 : static_cast<double>(lost()) / static_cast<double>(offered);
  }
  [[nodiscard]] double rate() const noexcept { return static_cast<double>(received) / seconds; }
  // wrong() counts what should not have come, late packets of an earlier trial aside.
  [[nodiscard]] std::uint64_t wrong() const noexcept;
};

class trial_runner {
 public:
  struct setup {
    std::uint16_t out_port{0};
    std::uint16_t in_port{1};
    std::uint32_t flows{1};
    unsigned burst{32};
    unsigned bucket{256};       // packets that may be sent late, all at once
    double drain_seconds{0.5};  // without a packet: nothing more will come
  };

  trial_runner(const setup& s, stamped_frames frames, rte_mempool* pool,
               const std::atomic<bool>& stop);

  // probe() sends single packets until one comes back; false when none has after `seconds`.
  bool probe(double seconds);
  // open() makes the handshake of every flow, no faster than it comes back. A handshake that is
  // lost is made again; false when that does not help.
  bool open();
  // run() is a trial with established flows drawn at random; `rate` 0: as fast as it goes.
  trial_result run(double rate, double seconds);

  // opening() is what probe() or open() saw the last time.
  [[nodiscard]] const trial_result& opening() const noexcept { return opening_; }
  [[nodiscard]] const latencies& took() const noexcept { return took_; }

 private:
  static constexpr unsigned most = 256;
  struct alignas(16) flow_state {
    std::uint32_t sent{0};
    std::uint32_t expected{0};
    std::uint32_t backend{0};
  };

  void begin(trial_result& r);
  void write(rte_mbuf* m, std::uint32_t flow, std::uint8_t flags, std::uint64_t now) noexcept;
  unsigned offer(trial_result& r, unsigned n);
  void send_all(trial_result& r, unsigned n, std::uint32_t first, std::uint8_t flags);
  unsigned receive(trial_result& r);
  void judge(trial_result& r, const rte_mbuf* m, std::uint64_t now) noexcept;
  void drain(trial_result& r);

  setup setup_;
  stamped_frames frames_;
  rte_mempool* pool_;
  const std::atomic<bool>& stop_;
  flow_picker pick_;
  std::vector<flow_state> flows_;
  std::array<rte_mbuf*, most> out_{};
  std::array<rte_mbuf*, most> in_{};
  std::array<std::uint32_t, most> drawn_{};
  std::uint32_t trial_{0x534c0000};
  trial_result opening_;
  latencies took_;
};

}  // namespace sluice::perf
