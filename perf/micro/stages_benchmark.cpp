// SPDX-License-Identifier: Apache-2.0
// What a packet costs stage by stage, and whole: parse, service look-up, flow hash, each
// scheduler's choice, each rewrite, and bursts through the packet path over the number of
// flows, services and backends, and over the burst's size. Nothing of DPDK.
//
//   stages_benchmark --benchmark_filter=path/burst
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/path/rewrite.hpp"
#include "dataplane/path/schedule/schedule.hpp"
#include "perf/common/path_world.hpp"

namespace sluice::perf {
namespace {

using abi::forward_mode;

constexpr std::size_t frame_count = 1024;

void per_packet(benchmark::State& state, std::size_t packets) {
  const auto n = static_cast<double>(state.iterations()) * static_cast<double>(packets);
  state.counters["per_packet"] =
      benchmark::Counter(n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// parse: the frames stay in the cache.
void parse(benchmark::State& state, const flow_frames::shape& shape) {
  const flow_frames frames{shape};
  path_world::bursts b{1, frame_count};
  for (std::uint32_t i = 0; i < frame_count; ++i) frames.write(b.set(i, frames.length()), i);
  wire::parsed m{};
  for (auto _ : state)
    for (std::size_t i = 0; i < frame_count; ++i) {
      const packet& p = b.at(i);
      wire::common c =
          p.length >= wire::common4_length ? wire::parse_common4(p.data, p.total_length) : 0;
      if (c == 0 && p.length >= wire::common6_length)
        c = wire::parse_common6(p.data, p.total_length);
      if (c == 0) m = wire::parse_any(p.data, p.length, p.total_length);
      benchmark::DoNotOptimize(c);
      benchmark::DoNotOptimize(m);
    }
  per_packet(state, frame_count);
}

// service: address and port to the service's row, as a packet without a connection has it done.
void service(benchmark::State& state, bool v6) {
  mix m;
  m.v6 = m.v6_backends = v6;
  m.services = static_cast<std::uint32_t>(state.range(0));
  m.backends = 1;
  m.table_size = 251;
  test::table_builder tables{limits_of(m)};
  fill_tables(m, tables);
  const abi::config_view view = tables.view();
  const flow_frames frames{{v6, false, false, m.services}};
  std::vector<ip_address> vips;
  for (std::uint32_t i = 0; i < frame_count; ++i)
    vips.push_back(vip(v6, frames.service_of(i * 7919)));
  std::uint64_t found = 0;
  for (auto _ : state)
    for (const ip_address& address : vips)
      if (const abi::vip_row* row = view.find_vip(address, 6); row != nullptr)
        if (const abi::service_row* s = view.find_service(*row, service_port); s != nullptr)
          found += static_cast<std::uint64_t>(s->self) + 1;
  if (found == 0) state.SkipWithError("no service was found");
  per_packet(state, frame_count);
}

void flow_hash(benchmark::State& state, bool v6) {
  std::uint64_t x = 1;
  for (auto _ : state)
    for (std::uint32_t i = 0; i < frame_count; ++i)
      benchmark::DoNotOptimize(v6 ? sluice_flow_hash6(42, 7, i, 8, 9, i, 80, 6)
                                  : sluice_flow_hash4(42, i, 7, i, 80, 6));
  benchmark::DoNotOptimize(x);
  per_packet(state, frame_count);
}

// choice: a scheduler's choice among 100 members.
void choice(benchmark::State& state, abi::scheduler kind) {
  mix m;
  m.services = 1;
  test::table_builder tables{limits_of(m)};
  fill_tables(m, tables);
  tables.service(0).kind = kind;
  const abi::config_view view = tables.view();
  std::vector<abi::backend_counters> own(m.backends);
  connection_loads loads{own.data(), m.backends, {}, 0, 1};
  service_state of_service;
  random_bits random{1};
  std::uint64_t hash = 1;
  std::uint64_t sum = 0;
  const abi::service_row& row = *view.service(abi::service_id{0});
  for (auto _ : state)
    for (std::size_t i = 0; i < frame_count; ++i) {
      hash = sluice_mix64(hash);
      sum += schedule(kind, {view, row, hash, of_service, random, loads}).value;
    }
  benchmark::DoNotOptimize(sum);
  per_packet(state, frame_count);
}

// rewriting: rewrite() alone; includes putting the headers there anew (subtract `frames`).
void rewriting(benchmark::State& state, forward_mode mode, bool v6, bool only_frames) {
  mix m;
  m.mode = mode;
  m.v6 = m.v6_backends = v6;
  m.services = 1;
  test::table_builder tables{limits_of(m)};
  fill_tables(m, tables);
  const abi::config_view view = tables.view();
  const flow_frames frames{{v6, false, false, 1}};
  path_world::bursts b{1, 64};
  wire::parsed parsed{};
  packet p{};
  std::byte* const frame = b.set(0, frames.length());
  frames.write(frame, 1);
  parsed = wire::parse_any(frame, frames.length(), frames.length());
  const abi::backend_row& row = *view.backend_at(7);
  const hop_words to = hop_words::of(row);
  bool failed = false;
  for (auto _ : state)
    for (std::uint32_t i = 0; i < frame_count; ++i) {
      p = b.at(i % 64);
      p.data = b.set(i % 64, frames.length());
      p = b.at(i % 64);
      frames.write(p.data, i);
      if (!only_frames)
        failed |= rewrite(p, parsed, to, row, view.header(), 2,
                          [i] { return sluice_flow_hash4(42, i, 7, i, 80, 6); }) != rewritten;
      benchmark::DoNotOptimize(p);
      benchmark::ClobberMemory();
    }
  if (failed) state.SkipWithError("a packet was not rewritten");
  per_packet(state, frame_count);
}

// whole: bursts of established flows through the path; includes writing the headers.
void whole(benchmark::State& state, const mix& m, std::size_t burst) {
  path_world w{m};
  w.establish();
  flow_picker pick{static_cast<std::uint32_t>(m.flows)};
  path_world::bursts b{1, burst};
  const auto fill = [&] {
    for (std::size_t i = 0; i < burst; ++i)
      w.frames.write(b.set(i, w.frames.length()), pick.next());
  };
  // Until each backend's row has been looked at.
  for (std::uint64_t n = 0; n < 4 * m.flows + 65536; n += burst) {
    fill();
    b.run(*w.path, w.now_ns);
  }
  const std::uint64_t hits = w.counted(abi::counter_id::connection_hits);
  for (auto _ : state) {
    fill();
    b.run(*w.path, w.now_ns);
  }
  per_packet(state, burst);
  const double all = static_cast<double>(state.iterations()) * static_cast<double>(burst);
  const auto now = static_cast<double>(w.counted(abi::counter_id::connection_hits) - hits);
  if (now < all) state.SkipWithError("not all were hits");
  state.SetLabel(w.memory.kind());
}
void headers(benchmark::State& state) {
  const flow_frames frames{{}};
  flow_picker pick{1'000'000};
  path_world::bursts b{1, 32};
  for (auto _ : state) {
    for (std::size_t i = 0; i < 32; ++i) frames.write(b.set(i, frames.length()), pick.next());
    benchmark::ClobberMemory();
  }
  per_packet(state, 32);
}

const std::array<std::pair<forward_mode, const char*>, 5> modes{
    {{forward_mode::dsr_l2, "dsr-l2"},
     {forward_mode::ipip, "ipip"},
     {forward_mode::gue, "gue"},
     {forward_mode::gre, "gre"},
     {forward_mode::dsr_dscp, "dsr-dscp"}}};

template <class Function>
benchmark::internal::Benchmark* add(const std::string& name, Function&& f) {
  return benchmark::RegisterBenchmark(name.c_str(), std::forward<Function>(f));
}

void enlist_stages() {
  for (const bool v6 : {false, true}) {
    const std::string family = v6 ? "/v6" : "/v4";
    for (const bool udp : {false, true})
      for (const bool vlan : {false, true})
        add("parse" + family + (udp ? "/udp" : "/tcp") + (vlan ? "/vlan" : ""), [=](auto& s) {
          parse(s, {v6, udp, vlan, 100});
        });
    add("service" + family, [=](auto& s) { service(s, v6); })->RangeMultiplier(8)->Range(1, 4096);
    add("flow_hash" + family, [=](auto& s) { flow_hash(s, v6); });
    add("rewrite" + family + "/frames",
        [=](auto& s) { rewriting(s, forward_mode::ipip, v6, true); });
    for (const auto& [mode, name] : modes)
      add("rewrite" + family + "/" + name,
          [=, mode = mode](auto& s) { rewriting(s, mode, v6, false); });
  }
  const std::array<const char*, 11> kinds{"",
                                          "maglev",
                                          "ring_hash",
                                          "partitioned_hash",
                                          "source_hash",
                                          "round_robin",
                                          "weighted_round_robin",
                                          "random",
                                          "weighted_random",
                                          "least_connections",
                                          "weighted_least_connections"};
  for (unsigned k = 1; k < kinds.size(); ++k)
    add(std::string{"choice/"} + kinds[k],
        [=](auto& s) { choice(s, static_cast<abi::scheduler>(k)); });
}

void enlist_path() {
  add("path/headers_only", headers);
  const auto path = [](const std::string& name, const mix& m, std::size_t burst) {
    add("path/" + name, [=](auto& s) { whole(s, m, burst); });
  };
  for (const bool v6 : {false, true})
    for (const std::uint64_t flows : {1u, 1'000u, 100'000u, 1'000'000u, 10'000'000u}) {
      mix m;
      m.v6 = m.v6_backends = v6;
      m.flows = flows;
      path(std::string{"flows/"} + (v6 ? "v6/" : "v4/") + std::to_string(flows), m, 32);
    }
  for (const std::size_t burst : {1u, 8u, 32u, 64u, 256u}) {
    mix m;
    m.flows = 1'000'000;
    path("burst/" + std::to_string(burst), m, burst);
  }
  for (const std::uint32_t services : {1u, 16u, 100u, 1000u, 4096u}) {
    mix m;
    m.flows = 100'000;
    m.services = services;
    m.backends = 10;
    m.table_size = 1021;
    path("services/" + std::to_string(services), m, 32);
  }
  for (const std::uint32_t backends : {1u, 10u, 100u, 1000u}) {
    mix m;
    m.flows = 100'000;
    m.services = 10;
    m.backends = backends;
    path("backends/" + std::to_string(backends), m, 32);
  }
  // The share of the table that is in use, in percent.
  for (const unsigned load : {50u, 65u, 80u, 90u, 95u}) {
    mix m;
    m.flows = 1'000'000;
    m.room = m.flows * 80 / load;
    path("load/" + std::to_string(load), m, 32);
  }
  for (const auto& [mode, name] : modes)
    for (const bool v6 : {false, true}) {
      mix m;
      m.mode = mode;
      m.v6 = m.v6_backends = v6;
      m.flows = 1'000'000;
      path(std::string{"mode/"} + name + (v6 ? "/v6" : "/v4"), m, 32);
    }
}

}  // namespace
}  // namespace sluice::perf

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  sluice::perf::enlist_stages();
  sluice::perf::enlist_path();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
