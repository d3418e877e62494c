// SPDX-License-Identifier: Apache-2.0
// Is an address in a list of a million prefixes? prefix_list::holds() beside rte_lpm and rte_fib
// with the same prefixes, for addresses half of which are in the list. Needs no root:
//
//   prefix_benchmark        (DPDK runs with --no-huge, in ordinary memory)
//
// rte_lpm is tried with few: it looks for the place of each rule among all others of
// its length, one after the other.
#include <benchmark/benchmark.h>
#include <rte_eal.h>
#include <rte_fib.h>
#include <rte_lpm.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "tests/packet/list_builder.hpp"

namespace sluice {
namespace {

constexpr std::size_t address_count = 1 << 16;
constexpr std::uint64_t arena = 64;

struct prefix {
  std::uint32_t base;  // host order
  std::uint8_t bits;
};

// world: n prefixes of 20 to 32 bits, as in lists of abusive networks: mostly /24 to /32.
struct world {
  explicit world(std::size_t n) {
    std::mt19937 random{n};
    for (std::size_t i = 0; i < n; ++i) {
      const auto die = static_cast<unsigned>(random() % 100);
      const auto bits = static_cast<std::uint8_t>(die < 50 ? 32 : die < 90 ? 24 : 20 + die % 12);
      const auto base = static_cast<std::uint32_t>(random()) & ~std::uint32_t{0} << (32 - bits);
      prefixes.push_back({base, bits});
    }
    std::vector<test::ipv4_range> ranges;
    for (const prefix& p : prefixes)
      ranges.push_back({p.base, p.base | static_cast<std::uint32_t>(0xffffffffull >> p.bits)});
    const auto disjoint = test::merged(ranges);
    memory.resize(arena + 65537 * 4 + disjoint.size() * 8);
    end = arena;
    list = test::write_list(memory.data(), end, disjoint);
    for (std::size_t i = 0; i < address_count; ++i) {
      const prefix& p = prefixes[random() % prefixes.size()];
      addresses.push_back(i % 2 == 0
                              ? static_cast<std::uint32_t>(random())
                              : p.base | (static_cast<std::uint32_t>(random()) &
                                          static_cast<std::uint32_t>(0xffffffffull >> p.bits)));
    }
  }
  std::vector<prefix> prefixes;
  std::vector<std::byte> memory;
  std::uint64_t end{};
  abi::prefix_list list{};
  std::vector<std::uint32_t> addresses;
};

// tbl8s() is how many groups of 256 addresses the longer prefixes need.
std::uint32_t tbl8s(std::size_t prefixes) {
  return static_cast<std::uint32_t>(prefixes * 7 / 10 + 256);
}

world& world_of(std::size_t n) {
  static std::unique_ptr<world> kept;
  if (!kept || kept->prefixes.size() != n) kept = std::make_unique<world>(n);
  return *kept;
}

void finish(benchmark::State& state, std::uint64_t inside, double bytes) {
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  state.counters["inside%"] =
      100.0 * static_cast<double>(inside) / static_cast<double>(state.iterations());
  if (bytes != 0) state.counters["MiB"] = bytes / (1 << 20);
}

void BM_prefix_list(benchmark::State& state) {
  const world& w = world_of(static_cast<std::size_t>(state.range(0)));
  std::uint64_t inside = 0;
  std::size_t i = 0;
  for (auto _ : state)
    inside += w.list.holds(w.memory.data(), arena, w.end,
                           ip_address::v4(be32{w.addresses[i++ % address_count]}));
  finish(state, inside, static_cast<double>(w.memory.size()));
}
BENCHMARK(BM_prefix_list)->Arg(1000)->Arg(100'000)->Arg(1'000'000);

void BM_rte_lpm(benchmark::State& state) {
  const world& w = world_of(static_cast<std::size_t>(state.range(0)));
  rte_lpm_config config{};
  config.max_rules = static_cast<std::uint32_t>(w.prefixes.size() + 1);
  config.number_tbl8s = tbl8s(w.prefixes.size());
  rte_lpm* lpm = rte_lpm_create("lists", SOCKET_ID_ANY, &config);
  if (lpm == nullptr) return state.SkipWithError("rte_lpm_create");
  std::size_t refused = 0;
  for (const prefix& p : w.prefixes) refused += rte_lpm_add(lpm, p.base, p.bits, 1) != 0;
  std::uint64_t inside = 0;
  std::size_t i = 0;
  for (auto _ : state) {
    std::uint32_t hop = 0;
    inside += rte_lpm_lookup(lpm, w.addresses[i++ % address_count], &hop) == 0;
  }
  finish(state, inside, 64.0 * (1 << 20) + 1024.0 * tbl8s(w.prefixes.size()));
  state.counters["refused"] = static_cast<double>(refused);
  rte_lpm_free(lpm);
}
BENCHMARK(BM_rte_lpm)->Arg(1000)->Arg(10'000);

void BM_rte_fib(benchmark::State& state) {
  const world& w = world_of(static_cast<std::size_t>(state.range(0)));
  rte_fib_conf config{};
  config.type = RTE_FIB_DIR24_8;
  config.default_nh = 0;
  config.max_routes = static_cast<int>(w.prefixes.size() + 1);
  config.dir24_8.nh_sz = RTE_FIB_DIR24_8_4B;
  config.dir24_8.num_tbl8 = tbl8s(w.prefixes.size());
  rte_fib* fib = rte_fib_create("lists", SOCKET_ID_ANY, &config);
  if (fib == nullptr) return state.SkipWithError("rte_fib_create");
  std::size_t refused = 0;
  for (const prefix& p : w.prefixes) refused += rte_fib_add(fib, p.base, p.bits, 1) != 0;
  std::uint64_t inside = 0;
  std::size_t i = 0;
  for (auto _ : state) {
    std::uint64_t hop = 0;
    std::uint32_t address = w.addresses[i++ % address_count];
    (void)rte_fib_lookup_bulk(fib, &address, &hop, 1);
    inside += hop != 0;
  }
  finish(state, inside, 64.0 * (1 << 20) + 1024.0 * tbl8s(w.prefixes.size()));
  state.counters["refused"] = static_cast<double>(refused);
  rte_fib_free(fib);
}
BENCHMARK(BM_rte_fib)->Arg(1000)->Arg(100'000)->Arg(1'000'000);

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  std::array<char, 32> name{"prefix_benchmark"};
  std::array<char, 32> no_huge{"--no-huge"};
  std::array<char, 32> no_pci{"--no-pci"};
  std::array<char, 32> memory{"-m"};
  std::array<char, 32> size{"1500"};
  std::array<char, 32> quiet{"--log-level=3"};
  std::array<char, 32> no_files{"--no-shconf"};
  std::array<char*, 7> arguments{name.data(), no_huge.data(), no_pci.data(),  memory.data(),
                                 size.data(), quiet.data(),   no_files.data()};
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0) {
    std::fputs("prefix_benchmark: DPDK does not start\n", stderr);
    return 1;
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
