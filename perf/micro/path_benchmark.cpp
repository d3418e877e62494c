// SPDX-License-Identifier: Apache-2.0
// The whole packet path without a NIC: bursts of minimum-size TCP packets of N flows in
// random order, 100 backends. Per packet: time, and the share of it that making the
// packet takes (BM_make). "make" + "path" is what is shown; subtract.
//
//   path_benchmark --benchmark_filter=ipip
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/connection/table.hpp"
#include "dataplane/path/packet_path.hpp"
#include "perf/micro/memory.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice {
namespace {

enum class kind { ipip4, dsr4, ipip_6in6 };

constexpr std::size_t buffer_size = 256;
constexpr std::size_t buffer_headroom = 128;
constexpr unsigned backend_count = 100;

// generator: packet of flow f into a buffer, from a template. Every flow has its own
// source address; the checksum is patched, not computed.
class generator {
 public:
  generator(kind k, std::uint32_t flows) : flows_{flows}, v6_{k == kind::ipip_6in6} {
    auto* b = template_.data();
    b[0] = 2;
    b[6] = 2;
    if (v6_) {
      b[12] = 0x86, b[13] = 0xdd, b[14] = 0x60;
      b[19] = 20, b[20] = 6, b[21] = 64;
      b[22] = 0x20, b[23] = 0x01;
      b[38] = 0x20, b[39] = 0x01, b[53] = 1;
      b[54] = 0x80, b[57] = 80, b[66] = 0x50, b[67] = 0x10;
    } else {
      b[12] = 8, b[14] = 0x45, b[17] = 40, b[22] = 64, b[23] = 6;
      b[26] = 10;
      b[30] = 198, b[31] = 51, b[32] = 100, b[33] = 1;
      b[34] = 0x80, b[37] = 80, b[46] = 0x50, b[47] = 0x10;
      std::uint32_t sum = 0;
      for (std::size_t i = 14; i < 34; i += 2) sum += static_cast<unsigned>(b[i] << 8 | b[i + 1]);
      sum_ = sum;
    }
  }

  void make(std::uint8_t* frame) {
    // A full-period generator modulo a power of two (Hull and Dobell), its high bits
    // mixed in: every flow in turn, in no order that a cache could guess.
    state_ = state_ * 0x5851f42d4c957f2d + 0x14057b7ef767814f;
    const auto f = static_cast<std::uint32_t>((state_ >> 33) & (flows_ - 1));
    std::memcpy(frame, template_.data(), 64);
    if (v6_) {
      std::memcpy(frame + 64, template_.data() + 64, 16);
      std::memcpy(frame + 34, &f, 4);
      return;
    }
    frame[27] = static_cast<std::uint8_t>(f >> 16);
    frame[28] = static_cast<std::uint8_t>(f >> 8);
    frame[29] = static_cast<std::uint8_t>(f);
    std::uint32_t sum = sum_ + ((f >> 16) & 0xff) + (f & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24] = static_cast<std::uint8_t>(~sum >> 8);
    frame[25] = static_cast<std::uint8_t>(~sum);
  }
  // begin_connections() makes all packets SYNs.
  void begin_connections() { template_[v6_ ? 67 : 47] = 0x02; }
  [[nodiscard]] std::uint32_t length() const { return v6_ ? 74 : 60; }

 private:
  alignas(64) std::array<std::uint8_t, 128> template_{};
  std::uint64_t state_{1};
  std::uint32_t flows_;
  bool v6_;
  std::uint32_t sum_{0};
};

struct world {
  world(kind k, std::uint32_t flows) : make{k, flows} {
    const ip_address vip = k == kind::ipip_6in6
                               ? ip_address::v6({0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
                               : ip_address::v4({198, 51, 100, 1});
    tables.header().source4 = {ip_address::v4({192, 0, 2, 1}), 32, 1, {}};
    tables.header().source6 = {ip_address::v6({0x20, 1, 0xd, 0xb8}), 128, 1, {}};
    std::vector<test::table_builder::backend_spec> backends;
    for (unsigned i = 0; i < backend_count; ++i) {
      const auto last = static_cast<std::uint8_t>(i);
      backends.push_back({k == kind::ipip_6in6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 1, last})
                                               : ip_address::v4({10, 0, 1, last}),
                          {2, 0, 0, 0, 1, last},
                          0,
                          1500,
                          7});
    }
    tables.add_service(vip, ip_proto::tcp, 80, 80,
                       k == kind::dsr4 ? abi::forward_mode::dsr_l2 : abi::forward_mode::ipip,
                       backends, 65537);
    const auto layout = abi::connection_layout::for_connections(1 << 20, 1 << 20);
    memory = std::make_unique<perf::huge_memory>(layout.total);
    auto* h = reinterpret_cast<abi::connection_header*>(memory->data());
    h->buckets4 = layout.buckets4;
    h->buckets6 = layout.buckets6;
    h->offset4 = layout.offset4;
    h->offset6 = layout.offset6;
    h->secret[0] = 0x0123456789abcdef;
    h->secret[1] = 0xfedcba9876543210;
    table = std::make_unique<connection::connection_table>(reinterpret_cast<std::byte*>(h));
    path = std::make_unique<packet_path>(
        *table, path_counters{counters.data(), services.data(), 64, backends_counters.data(), 256},
        ports);
    path->set_view(tables.view());
    buffers.resize(packet_path::max_burst * buffer_size / 64);
  }
  struct alignas(64) line {
    std::uint8_t bytes[64];
  };
  void fill(std::size_t burst) {
    auto* base = reinterpret_cast<std::uint8_t*>(buffers.data());
    for (std::size_t i = 0; i < burst; ++i) {
      std::uint8_t* frame = base + i * buffer_size + buffer_headroom;
      make.make(frame);
      packet& p = packets[i];
      p.data = reinterpret_cast<std::byte*>(frame);
      p.length = p.total_length = make.length();
      p.headroom = buffer_headroom;
      p.in_port = 0;
    }
  }

  test::table_builder tables;
  generator make;
  std::vector<line> buffers;
  std::array<packet, packet_path::max_burst> packets{};
  std::unique_ptr<perf::huge_memory> memory;
  std::unique_ptr<connection::connection_table> table;
  std::array<abi::counter, abi::counter_capacity> counters{};
  std::array<abi::service_counters, 64> services{};
  std::array<abi::backend_counters, 256> backends_counters{};
  std::array<path_port, 1> ports{};
  std::unique_ptr<packet_path> path;
};

void per_packet(benchmark::State& state, std::size_t burst) {
  const auto n = static_cast<double>(state.iterations()) * static_cast<double>(burst);
  state.counters["per_packet"] =
      benchmark::Counter(n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void BM_make(benchmark::State& state) {
  world w{kind::ipip4, static_cast<std::uint32_t>(state.range(0))};
  const auto burst = static_cast<std::size_t>(state.range(1));
  for (auto _ : state) {
    w.fill(burst);
    benchmark::ClobberMemory();
  }
  per_packet(state, burst);
}
BENCHMARK(BM_make)->ArgsProduct({{1 << 20}, {32}});

template <kind Kind>
void BM_path(benchmark::State& state) {
  const auto flows = static_cast<std::uint32_t>(state.range(0));
  world w{Kind, flows};
  const auto burst = static_cast<std::size_t>(state.range(1));
  std::uint64_t now = 1'000'000'000;
  for (std::uint64_t i = 0; i < std::uint64_t{flows} * 16 / burst + 4; ++i) {
    w.fill(burst);
    w.path->process({w.packets.data(), burst}, now);
  }
  for (auto _ : state) {
    w.fill(burst);
    w.path->process({w.packets.data(), burst}, now);
    now += 1000;
  }
  per_packet(state, burst);
  const auto forwarded = w.counters[static_cast<std::size_t>(abi::counter_id::forwarded)].read();
  const auto hits = w.counters[static_cast<std::size_t>(abi::counter_id::connection_hits)].read();
  state.counters["hit%"] = 100.0 * static_cast<double>(hits) / static_cast<double>(forwarded);
}
BENCHMARK(BM_path<kind::ipip4>)
    ->ArgsProduct({{1, 1 << 10, 1 << 17, 1 << 20}, {32}})
    ->Args({1 << 20, 64})
    ->Args({1 << 20, 256});
BENCHMARK(BM_path<kind::dsr4>)->ArgsProduct({{1, 1 << 10, 1 << 17, 1 << 20}, {32}});
BENCHMARK(BM_path<kind::ipip_6in6>)->ArgsProduct({{1, 1 << 10, 1 << 17, 1 << 20}, {32}});

// New connections: the table is emptied when every flow has been seen.
void new_connections(benchmark::State& state, abi::scheduler scheduler, bool options) {
  constexpr std::size_t burst = 32;
  world w{kind::ipip4, 1 << 24};
  w.make.begin_connections();
  w.tables.service(0).kind = scheduler;
  if (options) {
    // Limits that limit nothing, and persistence.
    w.tables.service(0).flags = abi::service_has_options;
    abi::service_options& o = w.tables.options(0);
    o.allow_list = o.deny_list = abi::no_list;
    o.connection_rate = o.source_connection_rate = o.syn_flood_rate = 4'000'000'000;
    o.source_prefix4 = 24;
    o.persistence_timeout = 300;
    o.persistence_prefix4 = 32;
  }
  w.path->set_view(w.tables.view());
  std::uint64_t now = 1'000'000'000;
  std::uint64_t made = 0;
  for (auto _ : state) {
    w.fill(burst);
    w.path->process({w.packets.data(), burst}, now);
    made += burst;
    if (made >= 800'000) {
      state.PauseTiming();
      w.table->v4.erase_if(
          0, w.table->v4.bucket_count(), [](auto) { return true; }, [](auto) {});
      made = 0;
      state.ResumeTiming();
    }
  }
  per_packet(state, burst);
}
void BM_new(benchmark::State& state) {
  new_connections(state, abi::scheduler::maglev, false);
}
BENCHMARK(BM_new);
// The schedulers' numbers (abi::scheduler), 100 members.
void BM_new_by_scheduler(benchmark::State& state) {
  new_connections(state, static_cast<abi::scheduler>(state.range(0)), false);
}
BENCHMARK(BM_new_by_scheduler)->DenseRange(4, 10);
void BM_new_with_options(benchmark::State& state) {
  new_connections(state, abi::scheduler::maglev, true);
}
BENCHMARK(BM_new_with_options);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
