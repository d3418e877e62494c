// SPDX-License-Identifier: Apache-2.0
// The connection table beside rte_hash, with the same keys, in bursts of 32, in one
// process. Not part of the timed test suite: run it alone, compare ratios and medians
// (--benchmark_repetitions=5 --benchmark_report_aggregates_only=true).
//
// Table and rte_hash are sized for the flows at 80% load (rte_hash: at its own 80%).
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

constexpr unsigned burst = 32;

// order: a random sequence of flow numbers, the same for every subject; no longer than
// needed, so that the keys themselves come from a near cache, as packets do.
std::vector<std::uint32_t> order(std::uint64_t flows, std::uint64_t salt) {
  std::vector<std::uint32_t> o(std::clamp<std::size_t>(flows, 4096, std::size_t{1} << 20) / burst *
                               burst);
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
  explicit filled_map(std::uint64_t flows)
      : buckets{(flows * 5 / 4 + Family::per_bucket - 1) / Family::per_bucket + 1},
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
Subject& shared(std::uint64_t flows) {
  static std::unique_ptr<Subject> kept;
  static std::uint64_t kept_flows = 0;
  if (kept == nullptr || kept_flows != flows) {
    kept.reset();
    kept = std::make_unique<Subject>(flows);
    kept_flows = flows;
  }
  return *kept;
}

void per_packet(benchmark::State& state) {
  const auto packets = static_cast<double>(state.iterations()) * burst;
  state.counters["ns_per_packet"] =
      benchmark::Counter(packets * 1e-9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

template <class Family, bool Hit, instruction_set Set>
void table_lookup(benchmark::State& state) {
  if (Set > connection::best_instruction_set()) {
    state.SkipWithError("not on this processor");
    return;
  }
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  auto& subject = shared<filled_map<Family>>(flows);
  const connection::flow_map<Family> map{subject.memory.data(), subject.buckets,
                                         filled_map<Family>::secret, Set};
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), Hit ? 0 : absent);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<bucket_hash, burst> hashes;
    std::array<handle, burst> found;
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
  per_packet(state);
  state.SetLabel(subject.memory.kind());
}

// What the overflow counter saves: the same look-up if both buckets were always read.
template <class Family>
void two_lines(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  auto& subject = shared<filled_map<Family>>(flows);
  auto* buckets = static_cast<typename Family::bucket*>(subject.memory.data());
  const std::uint64_t count = subject.buckets;
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), 0);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<bucket_hash, burst> hashes;
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
  per_packet(state);
}

// Inserts into a table that is filled from empty to 80%; only the inserting is timed.
template <class Family>
void table_insert(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  auto& subject = shared<filled_map<Family>>(flows);
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
    std::array<typename Family::key_type, burst> k;
    std::array<bucket_hash, burst> hashes;
    std::array<handle, burst> found;
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
  per_packet(state);
  // Refill, for whoever comes next.
  for (std::uint64_t i = 0; i < flows; ++i) {
    typename Family::key_type k;
    make_key(i, k);
    map.insert(map.hash(k), k, make_word(i));
  }
}

template <class Family>
class filled_rte_hash {
 public:
  using key = typename Family::key_type;
  explicit filled_rte_hash(std::uint64_t flows) {
    rte_hash_parameters p{};
    p.name = sizeof(key) == sizeof(connection::key4) ? "flows4" : "flows6";
    p.entries = static_cast<std::uint32_t>(flows * 5 / 4);
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
  auto& subject = shared<filled_rte_hash<Family>>(flows);
  if (subject.hash == nullptr) {
    state.SkipWithError("no rte_hash: see the message of rte_hash_create");
    return;
  }
  const auto keys = keys_for<typename Family::key_type>(order(flows, 1), Hit ? 0 : absent);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    std::array<const void*, burst> pointers;
    std::array<void*, burst> data;
    std::uint64_t hits = 0;
    for (unsigned i = 0; i < burst; ++i) pointers[i] = &keys[at + i];
    rte_hash_lookup_bulk_data(subject.hash, pointers.data(), burst, &hits, data.data());
    for (unsigned i = 0; i < burst; ++i)
      sum += (hits >> i & 1) != 0 ? reinterpret_cast<std::uintptr_t>(data[i]) : 1;
    at = (at + burst) % keys.size();
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state);
}

template <class Family>
void rte_insert(benchmark::State& state) {
  const auto flows = static_cast<std::uint64_t>(state.range(0));
  auto& subject = shared<filled_rte_hash<Family>>(flows);
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
  per_packet(state);
}

template <class Family>
void hash_only(benchmark::State& state) {
  const connection::bucket_hasher hasher{{1, 2}};
  const auto keys = keys_for<typename Family::key_type>(order(1000, 1), 0);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    for (unsigned i = 0; i < burst; ++i) sum += hasher(keys[at + i]).value;
    at = (at + burst) & 4095;
  }
  benchmark::DoNotOptimize(sum);
  per_packet(state);
}

template <class Family>
void enlist(const std::string& family) {
  const auto add = [](const std::string& name, void (*run)(benchmark::State&), std::int64_t flows) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->Args({flows})
        ->ComputeStatistics(
            "min",
            [](const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); })
        ->Unit(benchmark::kNanosecond);
  };
  benchmark::RegisterBenchmark((family + "/hash_only").c_str(), hash_only<Family>)
      ->ComputeStatistics("min", [](const std::vector<double>& v) {
        return *std::min_element(v.begin(), v.end());
      });
  // The subjects one after the other for each size: only one big table at a time.
  for (const std::int64_t flows : {1'000, 100'000, 1'000'000, 10'000'000}) {
    add(family + "/hit/scalar", table_lookup<Family, true, instruction_set::scalar>, flows);
    add(family + "/hit/two_lines", two_lines<Family>, flows);
    add(family + "/hit/avx2", table_lookup<Family, true, instruction_set::avx2>, flows);
    add(family + "/hit/avx512", table_lookup<Family, true, instruction_set::avx512>, flows);
    add(family + "/miss/scalar", table_lookup<Family, false, instruction_set::scalar>, flows);
    add(family + "/miss/avx2", table_lookup<Family, false, instruction_set::avx2>, flows);
    add(family + "/miss/avx512", table_lookup<Family, false, instruction_set::avx512>, flows);
    add(family + "/insert/sluice", table_insert<Family>, flows);
    add(family + "/hit/rte_hash", rte_lookup<Family, true>, flows);
    add(family + "/miss/rte_hash", rte_lookup<Family, false>, flows);
    add(family + "/insert/rte_hash", rte_insert<Family>, flows);
  }
}

}  // namespace
}  // namespace sluice::perf

int main(int argc, char** argv) {
  // EAL without devices or files. SLUICE_PERF_HUGEPAGES=1 gives rte_hash 2 MB pages too
  // (some 1300 must be free for 10M flows); compare the biggest tables only then.
  std::vector<std::string> eal{"connection_benchmark", "--no-shconf", "--no-pci", "--no-telemetry",
                               "--log-level=error",    "-l",          "0"};
  const char* huge = std::getenv("SLUICE_PERF_HUGEPAGES");
  if (huge != nullptr && std::string{huge} == "1") {
    eal.emplace_back("--in-memory");
  } else {
    eal.emplace_back("--no-huge");
    eal.emplace_back("-m");
    eal.emplace_back("3072");
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
