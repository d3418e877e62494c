// SPDX-License-Identifier: Apache-2.0
#include "perf/throughput/trial.hpp"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_prefetch.h>

#include <algorithm>
#include <utility>

namespace sluice::perf {
namespace {

constexpr std::uint64_t in_flight = 256;  // of handshakes: every ring has room for as many

std::uint64_t cycles(double seconds) {
  return static_cast<std::uint64_t>(seconds * static_cast<double>(rte_get_tsc_hz()));
}

}  // namespace

std::uint64_t trial_result::wrong() const noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = static_cast<std::size_t>(fault::late) + 1; i < faults.size(); ++i)
    sum += faults[i];
  return sum;
}

trial_runner::trial_runner(const setup& s, stamped_frames frames, rte_mempool* pool,
                           const std::atomic<bool>& stop)
    : setup_{s},
      frames_{std::move(frames)},
      pool_{pool},
      stop_{stop},
      pick_{s.flows},
      flows_(s.flows) {
  setup_.burst = std::clamp(setup_.burst, 1u, most);
}

// begin() starts the numbers of all flows afresh; which backend a flow has, is kept.
void trial_runner::begin(trial_result& r) {
  r = {};
  ++trial_;
  for (flow_state& f : flows_) f.sent = f.expected = 0;
  took_.clear();
}

void trial_runner::write(rte_mbuf* m, std::uint32_t flow, std::uint8_t flags,
                         std::uint64_t now) noexcept {
  auto* const to = rte_pktmbuf_mtod(m, std::uint8_t*);
  const std::uint32_t length =
      frames_.write(to, flow, flows_[flow].sent++, trial_, now & clock_mask, flags);
  m->data_len = static_cast<std::uint16_t>(length);
  m->pkt_len = length;
}

// offer() gives the driver n packets of flows drawn at random; what it does not take is lost.
unsigned trial_runner::offer(trial_result& r, unsigned n) {
  if (rte_pktmbuf_alloc_bulk(pool_, out_.data(), n) != 0) return 0;
  for (unsigned i = 0; i < n; ++i) {
    drawn_[i] = pick_.next();
    rte_prefetch0(&flows_[drawn_[i]]);
  }
  const std::uint64_t now = rte_rdtsc();
  for (unsigned i = 0; i < n; ++i) write(out_[i], drawn_[i], flag_ack, now);
  const unsigned sent =
      rte_eth_tx_burst(setup_.out_port, 0, out_.data(), static_cast<std::uint16_t>(n));
  if (sent < n) rte_pktmbuf_free_bulk(out_.data() + sent, n - sent);
  r.offered += n;
  r.accepted += sent;
  return n;
}

// send_all() sends one packet of each of n flows in a row, and tries until they are all taken.
void trial_runner::send_all(trial_result& r, unsigned n, std::uint32_t first, std::uint8_t flags) {
  while (rte_pktmbuf_alloc_bulk(pool_, out_.data(), n) != 0)
    if (receive(r) == 0 && stop_.load(std::memory_order_relaxed)) return;
  const std::uint64_t now = rte_rdtsc();
  for (unsigned i = 0; i < n; ++i) write(out_[i], first + i, flags, now);
  unsigned sent = 0;
  while (sent < n) {
    sent += rte_eth_tx_burst(setup_.out_port, 0, out_.data() + sent,
                             static_cast<std::uint16_t>(n - sent));
    if (sent == n) break;
    receive(r);
    if (!stop_.load(std::memory_order_relaxed)) continue;
    rte_pktmbuf_free_bulk(out_.data() + sent, n - sent);
    break;
  }
  r.offered += n;
  r.accepted += sent;
}

void trial_runner::judge(trial_result& r, const rte_mbuf* m, std::uint64_t now) noexcept {
  const auto count = [&r](fault f) { ++r.faults[static_cast<std::size_t>(f)]; };
  stamp s{};
  const fault f = m->nb_segs != 1 ? fault::frame
                                  : frames_.read(rte_pktmbuf_mtod(m, const std::uint8_t*),
                                                 m->data_len, trial_, s);
  if (f != fault::none) return count(f);
  if (s.flow >= flows_.size()) return count(fault::inner);
  flow_state& flow = flows_[s.flow];
  if (s.number >= flow.sent) return count(fault::inner);  // was never sent
  if (s.number < flow.expected) return count(fault::order);
  if (s.backend != 0 && flow.backend != 0 && s.backend != flow.backend)
    return count(fault::backend);  // a connection has moved
  flow.backend = s.backend;
  r.gaps += s.number - flow.expected;
  flow.expected = s.number + 1;
  ++r.received;
  took_.add((now - s.clock) & clock_mask);
}

unsigned trial_runner::receive(trial_result& r) {
  const unsigned n = rte_eth_rx_burst(setup_.in_port, 0, in_.data(), most / 4);
  if (n == 0) return 0;
  const std::uint64_t now = rte_rdtsc() & clock_mask;
  for (unsigned i = 0; i < n; ++i) rte_prefetch0(rte_pktmbuf_mtod(in_[i], void*));
  for (unsigned i = 0; i < n; ++i) {
    const std::uint32_t flow =
        frames_.flow_of(rte_pktmbuf_mtod(in_[i], const std::uint8_t*), in_[i]->data_len);
    if (flow < flows_.size()) rte_prefetch0(&flows_[flow]);
  }
  for (unsigned i = 0; i < n; ++i) judge(r, in_[i], now);
  rte_pktmbuf_free_bulk(in_.data(), n);
  return n;
}

// drain() waits for what is still on its way.
void trial_runner::drain(trial_result& r) {
  const std::uint64_t quiet = cycles(setup_.drain_seconds);
  std::uint64_t last = rte_rdtsc();
  while (r.received < r.accepted && !stop_.load(std::memory_order_relaxed)) {
    const std::uint64_t now = rte_rdtsc();
    if (receive(r) != 0)
      last = now;
    else if (now - last > quiet)
      break;
  }
}

bool trial_runner::probe(double seconds) {
  trial_result& r = opening_;
  begin(r);
  const std::uint64_t end = rte_rdtsc() + cycles(seconds);
  std::uint64_t next = 0;
  for (std::uint64_t now = rte_rdtsc(); r.received == 0 && now < end; now = rte_rdtsc()) {
    if (stop_.load(std::memory_order_relaxed)) return false;
    receive(r);
    if (now < next) continue;
    next = now + cycles(0.01);
    rte_mbuf* m = rte_pktmbuf_alloc(pool_);
    if (m == nullptr) continue;
    write(m, 0, flag_syn, now);
    if (rte_eth_tx_burst(setup_.out_port, 0, &m, 1) != 1) rte_pktmbuf_free(m);
  }
  // Probes that were waiting for the other side to begin may come yet.
  for (std::uint64_t last = rte_rdtsc(); rte_rdtsc() - last < cycles(0.05);)
    if (receive(r) != 0) last = rte_rdtsc();
  return r.received != 0;
}

bool trial_runner::open() {
  for (unsigned attempt = 0; attempt < 3; ++attempt) {
    trial_result& r = opening_;
    begin(r);
    std::uint64_t last = rte_rdtsc();
    const auto wait = [&] {
      while (r.offered - r.received > in_flight && !stop_.load(std::memory_order_relaxed)) {
        const std::uint64_t now = rte_rdtsc();
        if (receive(r) != 0)
          last = now;
        else if (now - last > cycles(setup_.drain_seconds))
          return false;  // something is lost
      }
      return true;
    };
    bool whole = true;
    for (std::uint32_t first = 0; whole && first < setup_.flows; first += 32) {
      const unsigned n = std::min(32u, setup_.flows - first);
      for (const std::uint8_t flags : {flag_syn, flag_ack}) {
        send_all(r, n, first, flags);
        receive(r);
        whole = whole && wait();
        if (stop_.load(std::memory_order_relaxed)) return false;
      }
    }
    drain(r);
    if (whole && r.received == r.offered && r.wrong() == 0) return true;
  }
  return false;
}

trial_result trial_runner::run(double rate, double seconds) {
  trial_result r;
  begin(r);
  r.wanted = rate;
  const std::uint64_t begun = rte_rdtsc();
  const std::uint64_t end = begun + cycles(seconds);
  const double per_cycle = rate / static_cast<double>(rte_get_tsc_hz());
  const auto bucket = static_cast<double>(std::max(setup_.bucket, setup_.burst));
  double tokens = 0;
  double missed = 0;
  std::uint64_t last = begun;
  std::uint64_t now = begun;
  for (; now < end; now = rte_rdtsc()) {
    unsigned n = setup_.burst;
    if (rate > 0) {
      tokens += static_cast<double>(now - last) * per_cycle;
      last = now;
      if (tokens > bucket) {
        missed += tokens - bucket;
        tokens = bucket;
      }
      n = std::min(n, static_cast<unsigned>(tokens));
    }
    if (n != 0) {
      const unsigned done = offer(r, n);
      if (rate > 0) tokens -= done;
    }
    receive(r);
    if (stop_.load(std::memory_order_relaxed)) {
      r.stopped = true;
      break;
    }
  }
  r.seconds = static_cast<double>(now - begun) / static_cast<double>(rte_get_tsc_hz());
  r.missed = static_cast<std::uint64_t>(missed);
  drain(r);
  return r;
}

}  // namespace sluice::perf
