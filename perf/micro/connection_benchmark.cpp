// SPDX-License-Identifier: Apache-2.0
// The connection table beside rte_hash, with the same keys, in one process. Not part of the timed
// test suite: run it alone, compare ratios and medians
// (--benchmark_repetitions=5 --benchmark_report_aggregates_only=true).
//
// Arguments: flows, load of table and rte_hash in percent, packets in a burst. hit and miss are
// look-ups, insert fills from empty to the load, evict enters newcomers into a table full of
// half-open connections (rte_hash has nothing like it).
// Flows are visited in random order, so that every look-up is a new bucket.
#include <benchmark/benchmark.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "perf/micro/memory.hpp"

namespace sluice::perf {
namespace {

using connection::bucket_hash;
using connection::handle;
using connection::instruction_set;

constexpr unsigned max_burst = 256;
constexpr unsigned hash_burst = 32;  // of hash_only

// order: a random sequence of flow numbers, the same for every subject; no longer than
// needed, so that the keys themselves come from a near cache, as packets do.
std::vector<std::uint32_t> order(std::uint64_t flows, std::uint64_t salt) {
  std::vector<std::uint32_t> o(std::clamp<std::size_t>(flows, 4096, std::size_t{1} << 20) /
                               max_burst * max_burst);
  for (std::size_t i = 0; i < o.size(); ++i)
    o[i] = static_cast<std::uint32_t>(scatter(i + salt * 7919) % flows);
  return o;
}

template <class Key>
std::vector<Key> keys_for(const std::vector<std::uint32_t>& numbers, std::uint64_t offset) {
  std::vector<Key> keys(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) make_key(numbers[i] + offset, keys[i]);
  return keys;
}

constexpr std::uint64_t absent = std::uint64_t{1} << 40;  // numbers of flows never entered

template <class Family>
class filled_map {
 public:
  using key = typename Family::key_type;
  filled_map(std::uint64_t flows, std::uint64_t load)
      : buckets{(flows * 100 / load + Family::per_bucket - 1) / Family::per_bucket + 1},
        memory{buckets * sizeof(typename Family::bucket)},
        map{memory.data(), buckets, secret} {
    for (std::uint64_t n = 0; n < flows; ++n) {
      key k;
      make_key(n, k);
      map.insert(map.hash(k), k, make_word(n));
    }
  }
  static constexpr std::array<std::uint64_t, 2> secret{0x1234567890abcdefull,
                                                       0xfedcba0987654321ull};
  std::uint64_t buckets;
  huge_memory memory;
  connection::flow_map<Family> map;
};

// The big tables take seconds to fill: kept for the benchmarks that follow.
template <class Subject>
Subject& shared(const benchmark::State& state) {
  static std::unique_ptr<Subject> kept;
  static std::uint64_t kept_flows = 0;
  static std::uint64_t kept_load = 0;
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const auto load = static_cast<std::uint64_t>(state.range(1));
  if (kept == nullptr || kept_flows != flows || kept_load != load) {
    kept.reset();
    kept = std::make_unique<Subject>(flows, load);
    kept_flows = flows;
    kept_load = load;
  }
  return *kept;
}

unsigned burst_of(const benchmark::State& state) {
  return static_cast<unsigned>(state.range(2));
}

void per_packet(benchmark::State& state, unsigned burst) {
  const auto packets = static_cast<double>(state.iterations()) * burst;
  state.counters["per_packet"] =
      benchmark::Counter(packets, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

template <class Family, bool Hit, instruction_set Set>
void table_lookup(benchmark::State& state) {
  if (Set > connection::best_instruction_set()) {
    state.SkipWithError("not on this processor");
    return;
  }
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  auto& subject = shared<filled_map<Family>>(state);
  const connection::flow_map<Family> map{subject.memory.data(), subject.buckets,
                                         filled_map<Family>::secret, Set};
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), Hit ? 0 : absent);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<bucket_hash, max_burst> hashes;
    std::array<handle, max_burst> found;
    const auto* k = keys.data() + at;
    for (unsigned i = 0; i < burst; ++i) {
      hashes[i] = map.hash(k[i]);
      map.prefetch(hashes[i]);
    }
    map.find_bulk(k, hashes.data(), found.data(), burst);
    for (unsigned i = 0; i < burst; ++i) sum += found[i] != nullptr ? found[i]->value & 0xffff : 1;
    at = (at + burst) % keys.size();
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state, burst);
  state.SetLabel(subject.memory.kind());
}

// What the overflow counter saves: the same look-up if both buckets were always read.
template <class Family>
void two_lines(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  auto& subject = shared<filled_map<Family>>(state);
  auto* buckets = static_cast<typename Family::bucket*>(subject.memory.data());
  const std::uint64_t count = subject.buckets;
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), 0);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<bucket_hash, max_burst> hashes;
    const auto* k = keys.data() + at;
    for (unsigned i = 0; i < burst; ++i) {
      hashes[i] = subject.map.hash(k[i]);
      Family::prefetch(buckets + connection::primary_bucket(hashes[i], count));
      Family::prefetch(buckets + connection::secondary_bucket(hashes[i], count));
    }
    for (unsigned i = 0; i < burst; ++i) {
      auto& first = buckets[connection::primary_bucket(hashes[i], count)];
      auto& second = buckets[connection::secondary_bucket(hashes[i], count)];
      const unsigned here = connection::scalar_probe::match(first, k[i]);
      const unsigned there = connection::scalar_probe::match(second, k[i]);
      const auto* found = here < 4 ? &first.entries[here] : &second.entries[there & 3];
      sum += found->word.value & 0xffff;
    }
    at = (at + burst) % keys.size();
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state, burst);
}

// Inserts into a table that is filled from empty to 80%; only the inserting is timed.
template <class Family>
void table_insert(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  auto& subject = shared<filled_map<Family>>(state);
  auto& map = subject.map;
  std::uint64_t n = flows;
  for (auto _ : state) {
    if (n + burst > flows) {
      state.PauseTiming();
      map.erase_if(
          0, map.bucket_count(), [](auto) { return true; }, [](auto) {});
      n = 0;
      state.ResumeTiming();
    }
    std::array<typename Family::key_type, max_burst> k;
    std::array<bucket_hash, max_burst> hashes;
    std::array<handle, max_burst> found;
    for (unsigned i = 0; i < burst; ++i) {
      make_key(n + i, k[i]);
      hashes[i] = map.hash(k[i]);
      map.prefetch(hashes[i]);
    }
    map.find_bulk(k.data(), hashes.data(), found.data(), burst);
    for (unsigned i = 0; i < burst; ++i)
      if (found[i] == nullptr) benchmark::DoNotOptimize(map.insert(hashes[i], k[i], make_word(n)));
    n += burst;
  }
  per_packet(state, burst);
  // Refill, for whoever comes next.
  for (std::uint64_t i = 0; i < flows; ++i) {
    typename Family::key_type k;
    make_key(i, k);
    map.insert(map.hash(k), k, make_word(i));
  }
}

// Newcomers, one after the other, into a table whose every place has a half-open connection.
template <class Family>
void table_evict(benchmark::State& state) {
  using abi::connection_state;
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  filled_map<Family> subject{flows, 80};
  auto& map = subject.map;
  const auto word = [](std::uint64_t n, std::uint16_t now) {
    return make_word(n).with_state(connection_state::syn).with_seen(now);
  };
  map.erase_if(
      0, map.bucket_count(), [](auto) { return true; }, [](auto) {});
  for (std::uint64_t n = 0; n < 2 * flows; ++n) {
    typename Family::key_type k;
    make_key(n, k);
    map.insert(map.hash(k), k, word(n, 1));
  }
  std::uint64_t n = 2 * flows;
  std::uint64_t evicted = 0;
  for (auto _ : state) {
    std::array<typename Family::key_type, max_burst> k;
    std::array<bucket_hash, max_burst> hashes;
    std::array<handle, max_burst> found;
    for (unsigned i = 0; i < burst; ++i) {
      make_key(n + i, k[i]);
      hashes[i] = map.hash(k[i]);
      map.prefetch(hashes[i]);
    }
    map.find_bulk(k.data(), hashes.data(), found.data(), burst);
    for (unsigned i = 0; i < burst; ++i)
      evicted += map.insert(hashes[i], k[i], word(n, 2)).outcome == connection::outcome::evicted;
    n += burst;
  }
  per_packet(state, burst);
  state.counters["evicted_%"] =
      100.0 * static_cast<double>(evicted) / (static_cast<double>(state.iterations()) * burst);
}

template <class Family>
class filled_rte_hash {
 public:
  using key = typename Family::key_type;
  filled_rte_hash(std::uint64_t flows, std::uint64_t load) {
    rte_hash_parameters p{};
    p.name = sizeof(key) == sizeof(connection::key4) ? "flows4" : "flows6";
    p.entries = static_cast<std::uint32_t>(flows * 100 / load);
    p.key_len = sizeof(key);
    p.hash_func = rte_hash_crc;
    p.hash_func_init_val = 0x12345678;
    p.socket_id = SOCKET_ID_ANY;
    hash = rte_hash_create(&p);
    if (hash == nullptr) {
      std::fprintf(stderr, "rte_hash_create: %s\n", rte_strerror(rte_errno));
      return;
    }
    for (std::uint64_t n = 0; n < flows; ++n) {
      key k;
      make_key(n, k);
      rte_hash_add_key_data(hash, &k, reinterpret_cast<void*>(n & 0xffff));
    }
  }
  filled_rte_hash(const filled_rte_hash&) = delete;
  filled_rte_hash& operator=(const filled_rte_hash&) = delete;
  ~filled_rte_hash() { rte_hash_free(hash); }
  rte_hash* hash{nullptr};
};

template <class Family, bool Hit>
void rte_lookup(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  auto& subject = shared<filled_rte_hash<Family>>(state);
  if (subject.hash == nullptr) {
    state.SkipWithError("no rte_hash: see the message of rte_hash_create");
    return;
  }
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), Hit ? 0 : absent);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<const void*, max_burst> pointers;
    std::array<void*, max_burst> data;
    std::uint64_t hits = 0;
    for (unsigned from = 0; from < burst; from += RTE_HASH_LOOKUP_BULK_MAX) {
      const unsigned n = std::min<unsigned>(burst - from, RTE_HASH_LOOKUP_BULK_MAX);
      for (unsigned i = 0; i < n; ++i) pointers[i] = &keys[at + from + i];
      rte_hash_lookup_bulk_data(subject.hash, pointers.data(), n, &hits, data.data());
      for (unsigned i = 0; i < n; ++i)
        sum += (hits >> i & 1) != 0 ? reinterpret_cast<std::uintptr_t>(data[i]) : 1;
    }
    at = (at + burst) % keys.size();
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state, burst);
}

template <class Family>
void rte_insert(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  const unsigned burst = burst_of(state);
  auto& subject = shared<filled_rte_hash<Family>>(state);
  if (subject.hash == nullptr) {
    state.SkipWithError("no rte_hash: see the message of rte_hash_create");
    return;
  }
  std::uint64_t n = flows;
  for (auto _ : state) {
    if (n + burst > flows) {
      state.PauseTiming();
      rte_hash_reset(subject.hash);
      n = 0;
      state.ResumeTiming();
    }
    for (unsigned i = 0; i < burst; ++i) {
      typename Family::key_type k;
      make_key(n + i, k);
      rte_hash_add_key_data(subject.hash, &k, reinterpret_cast<void*>(n));
    }
    n += burst;
  }
  per_packet(state, burst);
}

template <class Family>
void hash_only(benchmark::State& state) {
  constexpr unsigned burst = hash_burst;
  const connection::bucket_hasher hasher{{1, 2}};
  const auto keys = keys_for<typename Family::key_type>(order(1000, 1), 0);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    for (unsigned i = 0; i < burst; ++i) sum += hasher(keys[at + i]).value;
    at = (at + burst) & 4095;
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state, burst);
}

template <class Family>
void enlist(const std::string& family) {
  const auto min = [](const std::vector<double>& v) {
    return *std::min_element(v.begin(), v.end());
  };
  benchmark::RegisterBenchmark((family + "/hash_only").c_str(), hash_only<Family>)
      ->ComputeStatistics("min", min);
  const auto add = [&](const std::string& name, void (*run)(benchmark::State&),
                       const std::vector<std::int64_t>& arguments) {
    benchmark::RegisterBenchmark((family + name).c_str(), run)
        ->Args(arguments)
        ->ComputeStatistics("min", min)
        ->Unit(benchmark::kNanosecond);
  };
  // The subjects one after the other for each size: only one big table at a time.
  const auto all = [&](std::int64_t flows, std::int64_t load, std::int64_t burst) {
    const std::vector<std::int64_t> a{flows, load, burst};
    add("/hit/scalar", table_lookup<Family, true, instruction_set::scalar>, a);
    add("/hit/two_lines", two_lines<Family>, a);
    add("/hit/avx2", table_lookup<Family, true, instruction_set::avx2>, a);
    add("/hit/avx512", table_lookup<Family, true, instruction_set::avx512>, a);
    add("/miss/scalar", table_lookup<Family, false, instruction_set::scalar>, a);
    add("/miss/avx2", table_lookup<Family, false, instruction_set::avx2>, a);
    add("/miss/avx512", table_lookup<Family, false, instruction_set::avx512>, a);
    add("/insert/sluice", table_insert<Family>, a);
    add("/hit/rte_hash", rte_lookup<Family, true>, a);
    add("/miss/rte_hash", rte_lookup<Family, false>, a);
    add("/insert/rte_hash", rte_insert<Family>, a);
  };
  for (const std::int64_t flows : {1'000, 100'000, 1'000'000, 10'000'000, 30'000'000})
    all(flows, 80, 32);
  for (const std::int64_t burst : {8, 64, 256}) all(1'000'000, 80, burst);
  for (const std::int64_t load : {50, 65, 90, 95}) all(1'000'000, load, 32);
  for (const std::int64_t flows : {1'000, 100'000, 1'000'000, 10'000'000})
    add("/evict/sluice", table_evict<Family>, {flows, 80, 32});
}

}  // namespace
}  // namespace sluice::perf

int main(int argc, char** argv) {
  // EAL without devices or files. SLUICE_PERF_HUGEPAGES=1 gives rte_hash 2 MB pages too
  // (some 1300 must be free for 10M flows); compare the biggest tables only then. Memory
  // that is not used is not taken.
  std::vector<std::string> eal{"connection_benchmark", "--no-shconf", "--no-pci", "--no-telemetry",
                               "--log-level=error",    "-l",          "0"};
  const char* huge = std::getenv("SLUICE_PERF_HUGEPAGES");
  if (huge != nullptr && std::string{huge} == "1") {
    eal.emplace_back("--in-memory");
  } else {
    eal.emplace_back("--no-huge");
    eal.emplace_back("-m");
    eal.emplace_back("8192");
  }
  std::vector<char*> arguments;
  for (std::string& a : eal) arguments.push_back(a.data());
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0) {
    std::fprintf(stderr, "EAL does not start: %s\n", rte_strerror(rte_errno));
    return 1;
  }
  sluice::perf::enlist<sluice::connection::ipv4>("ipv4");
  sluice::perf::enlist<sluice::connection::ipv6>("ipv6");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
