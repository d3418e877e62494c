// SPDX-License-Identifier: Apache-2.0
#include "dataplane/worker/worker.hpp"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_prefetch.h>
#include <rte_ring.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "dataplane/abi/segment.hpp"
#include "dataplane/worker/mbuf_packet.hpp"

namespace sluice {
namespace {

using abi::counter_id;

// Turns between two looks at the clock and the tables. At full bursts that is some 25,000
// packets, half a millisecond to two; with nothing to do some 20 us. Where turns take longer (many
// queues, new connections to be counted among a thousand members) the time decides: the
// stand-in takes a worker for hanging that has not looked for 100 ms.
constexpr std::uint64_t turns_per_look = 256;
constexpr std::uint64_t looks_per_second = 500;

// A burst that does not fit the TX ring is offered again this often. A 10 Gbit/s port
// sends 32 small frames in 2 us, which is about 16 attempts; more would keep the RX queue
// waiting, and then packets are lost there.
constexpr unsigned tx_attempts = 16;

// idle: yield and sleep poll this often before they give the CPU away: the next packet of
// a conversation often comes within a microsecond or two.
constexpr std::uint64_t passes_before_rest = 64;
constexpr long shortest_sleep_ns = 2'000;
constexpr long longest_sleep_ns = 200'000;  // bounds the delay of the first packet

constexpr std::uint64_t second = 1'000'000'000;

}  // namespace

worker::worker(worker_setup setup)
    : setup_{std::move(setup)},
      table_{setup_.connections},
      follower_{setup_.block->generation, *setup_.config},
      tap_{setup_.capture_wanted} {
  table_.recount();  // it may have been another process's before
  setup_.counters.other_backends = setup_.other_backends;
  setup_.burst = std::clamp<unsigned>(setup_.burst, 1, packet_path::max_burst);
  setup_.twins.resize(abi::max_ports);
  for (std::uint8_t port = 0; port < abi::max_ports; ++port)
    if (setup_.twins[port].from_kernel != nullptr) from_twins_.push_back(port);
}

void worker::run() noexcept {
  now_ns_ = second_ns_ = abi::clock_ns(CLOCK_MONOTONIC);
  touch_counters();
  packet_path path{table_, setup_.counters, setup_.ports};
  path.set_owner(setup_.peers.from.empty() ? nullptr : setup_.owner, setup_.self);
  nat_.assign(setup_.nat.begin(), setup_.nat.end());
  if (setup_.self < nat_.size()) path.use_nat(setup_.nat[setup_.self], nat_);
  if (setup_.persistence != nullptr) path.use_persistence(*setup_.persistence);
  setup_.block->capacity4 = table_.v4.capacity();
  setup_.block->capacity6 = table_.v6.capacity();
  // The kernel's default slack of 50 us would be added to every sleep.
  if (setup_.idle == idle_mode::sleep) ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  quiescent(path);
  setup_.block->phase.store(abi::worker_phase::running, std::memory_order_release);
  second_cycles_ = rte_rdtsc();
  const std::uint64_t look_cycles = rte_get_tsc_hz() / looks_per_second;
  std::uint64_t looked = second_cycles_;
  std::uint64_t begin = second_cycles_;  // of this turn

  while (!stop_.load(std::memory_order_relaxed)) {
    unsigned got = 0;
    for (const worker_rx& from : setup_.rx) got += receive(path, from);
    if (!setup_.peers.from.empty()) got += take_handed(path);
    if (!from_twins_.empty()) got += from_twins();
    ++loops_;
    // Once in a turn: reading it takes some 10 ns.
    const std::uint64_t end = rte_rdtsc();
    if (got != 0) {
      ++busy_loops_;
      empty_passes_ = 0;
      busy_cycles_ += end - begin;
    } else {
      ++empty_passes_;
    }
    begin = end;
    const bool resting = setup_.idle != idle_mode::busy && empty_passes_ >= passes_before_rest;
    if (resting) rest();
    if (resting || loops_ % turns_per_look == 0 || end - looked >= look_cycles) {
      quiescent(path);
      looked = begin = rte_rdtsc();
    }
  }
  path.set_view(abi::config_view{});
  follower_.stop();
  setup_.block->phase.store(abi::worker_phase::stopped, std::memory_order_release);
}

unsigned worker::receive(packet_path& path, const worker_rx& from) noexcept {
  const std::uint16_t n = rte_eth_rx_burst(from.device, from.queue, mbufs_.data(),
                                           static_cast<std::uint16_t>(setup_.burst));
  if (n == 0) return 0;
  std::uint64_t bytes = 0;
  for (unsigned i = 0; i < n; ++i) {
    packet& p = packets_[i];
    to_packet(*mbufs_[i], from.port, p);
    rte_prefetch0(p.data);
    bytes += p.total_length;
  }
  count(counter_id::rx_packets, n);
  count(counter_id::rx_bytes, bytes);
  const bool captured = tap_.begin(packets_.data(), mbufs_.data(), n);
  path.process(std::span{packets_}.first(n), now_ns_);
  if (captured) [[unlikely]]
    finish_capture(n);

  act(n);
  if (!path.released().empty()) [[unlikely]]
    release(path);
  return n;
}

[[gnu::noinline]] void worker::finish_capture(unsigned n) noexcept {
  tap_.end(packets_.data(), mbufs_.data(), n, [this](std::uint8_t port) {
    return port < setup_.tx.size() ? setup_.tx[port].device : std::uint16_t{0};
  });
}

// act() does what the path has decided on the first n packets.
void worker::act(unsigned n) noexcept {
  for (unsigned i = 0; i < n; ++i) {
    const packet& p = packets_[i];
    if (p.outcome == verdict::forward && p.out_port < setup_.tx.size()) [[likely]] {
      i += hand_out_row(i, n) - 1;
    } else if (p.outcome == verdict::forward || p.outcome == verdict::reply) {
      hand_out(mbufs_[i], p);
    } else if (p.outcome == verdict::kernel) {
      if (kernel_count_ != 0 && kernel_port_ != p.in_port) to_twin();
      kernel_port_ = p.in_port;
      for_kernel_[kernel_count_++] = mbufs_[i];
    } else if (p.outcome == verdict::held) {
      held_[p.place] = mbufs_[i];
    } else if (p.outcome == verdict::hand_over) {
      hand_over(mbufs_[i], p);
    } else {
      drops_[drop_count_++] = mbufs_[i];
    }
  }
  send_all();
  if (kernel_count_ != 0) [[unlikely]]
    to_twin();
  if (drop_count_ != 0) rte_pktmbuf_free_bulk(drops_.data(), std::exchange(drop_count_, 0));
}

// hand_out_row() hands packet i out, which is to be forwarded, and those behind it that leave
// by the same port; returns how many.
[[gnu::always_inline]] inline unsigned worker::hand_out_row(unsigned i, unsigned n) noexcept {
  const std::uint8_t port = packets_[i].out_port;
  out_queue& out = out_[port];
  rte_mbuf** to = out.mbufs.data() + out.count;
  std::uint64_t bytes = out.bytes;
  unsigned at = i;
  for (; at < n; ++at) {
    const packet& p = packets_[at];
    if (p.outcome != verdict::forward || p.out_port != port) break;
    rte_mbuf* const m = mbufs_[at];
    if (m->nb_segs != 1) [[unlikely]]
      break;
    from_whole_packet(p, *m);
    bytes += p.total_length;
    *to++ = m;
  }
  out.bytes = bytes;
  out.count = static_cast<std::uint16_t>(to - out.mbufs.data());
  ports_used_ |= std::uint64_t{1} << port;
  if (at != i) [[likely]]
    return at - i;
  hand_out(mbufs_[i], packets_[i]);
  return 1;
}

// release() deals with the fragments that have waited and do so no longer. After act().
[[gnu::noinline]] void worker::release(const packet_path& path) noexcept {
  const std::span<const packet> out = path.released();
  for (std::size_t i = 0; i < out.size(); ++i) {
    packets_[i] = out[i];
    mbufs_[i] = std::exchange(held_[out[i].place], nullptr);
  }
  act(static_cast<unsigned>(out.size()));
}

// hand_over() gives a packet to the worker that owns it, which starts afresh.
[[gnu::noinline]] void worker::hand_over(rte_mbuf* m, const packet& p) noexcept {
  rte_ring* const ring =
      p.out_port < setup_.peers.to.size() ? setup_.peers.to[p.out_port] : nullptr;
  m->hash.usr = p.in_port;
  if (ring != nullptr && rte_ring_sp_enqueue(ring, m) == 0) {
    count(counter_id::handed_over, 1);
    return;
  }
  count(counter_id::drop_handover_full, 1);
  drops_[drop_count_++] = m;
}

// take_handed() deals with what the other workers have handed over.
[[gnu::noinline]] unsigned worker::take_handed(packet_path& path) noexcept {
  unsigned all = 0;
  for (rte_ring* const ring : setup_.peers.from) {
    const unsigned n = rte_ring_sc_dequeue_burst(ring, reinterpret_cast<void**>(mbufs_.data()),
                                                 setup_.burst, nullptr);
    if (n == 0) continue;
    all += n;
    for (unsigned i = 0; i < n; ++i) {
      to_packet(*mbufs_[i], static_cast<std::uint8_t>(mbufs_[i]->hash.usr), packets_[i]);
      rte_prefetch0(packets_[i].data);
    }
    count(counter_id::handed_to_us, n);
    const bool captured = tap_.begin(packets_.data(), mbufs_.data(), n);
    path.process_handed(std::span{packets_}.first(n), now_ns_);
    if (captured) [[unlikely]]
      finish_capture(n);
    act(n);
    if (!path.released().empty()) release(path);
  }
  return all;
}

void worker::send_all() noexcept {
  for (std::uint64_t used = std::exchange(ports_used_, 0); used != 0; used &= used - 1)
    send(static_cast<std::uint8_t>(std::countr_zero(used)));
}

// to_twin() gives what was received by a port and is for no service to the kernel. The
// path leaves packets to the kernel only where the port has a twin.
[[gnu::noinline]] void worker::to_twin() noexcept {
  const unsigned n = std::exchange(kernel_count_, 0);
  rte_ring* const ring =
      kernel_port_ < setup_.twins.size() ? setup_.twins[kernel_port_].to_kernel : nullptr;
  const unsigned taken =
      ring == nullptr
          ? 0
          : rte_ring_enqueue_burst(ring, reinterpret_cast<void**>(for_kernel_.data()), n, nullptr);
  if (taken != 0) count(counter_id::to_twin, taken);
  if (taken == n) return;
  rte_pktmbuf_free_bulk(for_kernel_.data() + taken, n - taken);
  count(ring == nullptr ? counter_id::drop_not_for_us : counter_id::drop_twin_full, n - taken);
}

// from_twins() sends what the kernel has sent to the twins, as it is, from their ports.
[[gnu::noinline]] unsigned worker::from_twins() noexcept {
  unsigned all = 0;
  for (const std::uint8_t port : from_twins_) {
    const unsigned n =
        rte_ring_dequeue_burst(setup_.twins[port].from_kernel,
                               reinterpret_cast<void**>(mbufs_.data()), setup_.burst, nullptr);
    if (n == 0) continue;
    all += n;
    count(counter_id::from_twin, n);
    for (unsigned i = 0; i < n; ++i) queue_for(port, mbufs_[i]);
    if (out_[port].count != 0) send(port);
    if (drop_count_ != 0) rte_pktmbuf_free_bulk(drops_.data(), std::exchange(drop_count_, 0));
  }
  return all;
}

void worker::hand_out(rte_mbuf* m, const packet& p) noexcept {
  if (p.out_port >= setup_.tx.size()) [[unlikely]] {  // the tables name a port we do not have
    count(counter_id::drop_no_next_hop, 1);
    drops_[drop_count_++] = m;
    return;
  }
  from_packet(p, *m);
  queue_for(p.out_port, m);
  ports_used_ |= std::uint64_t{1} << p.out_port;
}

// queue_for() makes a chain that the device cannot send one buffer.
void worker::queue_for(std::uint8_t port, rte_mbuf* m) noexcept {
  if (m->nb_segs > 1 && m->pkt_len > setup_.tx[port].longest_chain &&
      rte_pktmbuf_linearize(m) != 0) {
    count(counter_id::drop_too_big, 1);
    drops_[drop_count_++] = m;
    return;
  }
  out_queue& out = out_[port];
  out.bytes += m->pkt_len;
  out.mbufs[out.count++] = m;
}

void worker::send(std::uint8_t port) noexcept {
  const worker_tx& to = setup_.tx[port];
  out_queue& out = out_[port];
  std::uint16_t sent = 0;
  for (unsigned attempt = 0; attempt < tx_attempts && sent < out.count; ++attempt)
    sent = static_cast<std::uint16_t>(
        sent + rte_eth_tx_burst(to.device, to.queue, out.mbufs.data() + sent,
                                static_cast<std::uint16_t>(out.count - sent)));
  if (sent < out.count) [[unlikely]] {
    for (unsigned i = sent; i < out.count; ++i) out.bytes -= out.mbufs[i]->pkt_len;
    rte_pktmbuf_free_bulk(out.mbufs.data() + sent, out.count - sent);
    count(counter_id::drop_tx_full, static_cast<std::uint64_t>(out.count - sent));
  }
  count(counter_id::tx_packets, sent);
  count(counter_id::tx_bytes, out.bytes);
  out.count = 0;
  out.bytes = 0;
}

void worker::quiescent(packet_path& path) noexcept {
  now_ns_ = abi::clock_ns(CLOCK_MONOTONIC);  // the vDSO: no system call
  follower_.poll([&path](const abi::config_view& view) { path.set_view(view); });
  path.maintain(now_ns_);
  if (!path.released().empty()) [[unlikely]]
    release(path);
  abi::worker_block& block = *setup_.block;
  // The control plane reads this line rarely, but every store would take it back.
  if (now_ns_ - block.heartbeat_ns.read() < 1'000'000) return;
  block.heartbeat_ns.set(now_ns_);
  block.tracked4.set(table_.v4.size());
  block.tracked6.set(table_.v6.size());
  if (!from_twins_.empty()) {
    std::uint64_t refused = 0;
    for (const std::uint8_t port : from_twins_)
      refused += setup_.twins[port].refused->load(std::memory_order_relaxed);
    count(counter_id::drop_twin_full, refused - std::exchange(twins_refused_, refused));
  }
  auto& loops = block.counters[static_cast<std::size_t>(counter_id::loops)];
  auto& busy = block.counters[static_cast<std::size_t>(counter_id::busy_loops)];
  loops.set(loops_);
  busy.set(busy_loops_);
  if (now_ns_ - second_ns_ >= second) {
    const std::uint64_t cycles = rte_rdtsc();
    const std::uint64_t all = std::max<std::uint64_t>(cycles - second_cycles_, 1);
    block.busy_permille.set(std::min<std::uint64_t>(busy_cycles_ * 1000 / all, 1000));
    busy_cycles_ = 0;
    second_cycles_ = cycles;
    second_ns_ = now_ns_;
  }
}

void worker::rest() noexcept {
  if (setup_.idle == idle_mode::yield) {
    ::sched_yield();
    return;
  }
  const std::uint64_t doublings =
      std::min<std::uint64_t>((empty_passes_ - passes_before_rest) / 8, 7);
  timespec t{};
  t.tv_nsec = std::min(shortest_sleep_ns << doublings, longest_sleep_ns);
  ::nanosleep(&t, nullptr);
}

// touch_counters() has the pages of this worker's counters allocated now, and here: on
// its own NUMA node, and not under the first packets.
void worker::touch_counters() noexcept {
  constexpr std::size_t page = 4096;
  for (std::size_t i = 0; i < setup_.counters.service_rows;
       i += page / sizeof(abi::service_counters))
    setup_.counters.services[i].packets.add(0);
  for (std::size_t i = 0; i < setup_.counters.backend_rows;
       i += page / sizeof(abi::backend_counters))
    setup_.counters.backends[i].packets.add(0);
  if (setup_.counters.resets != nullptr)
    for (std::size_t i = 0; i < setup_.counters.backend_rows; i += page / sizeof(abi::counter))
      setup_.counters.resets[i].add(0);
}

}  // namespace sluice
