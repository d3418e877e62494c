// SPDX-License-Identifier: Apache-2.0
// The packet path against its reference model: random bursts, tables that change between them,
// a clock that goes on. Every packet's verdict and frame, all counters, and the connections have
// to be the same.
//
//   reference_test --packets 10000000 --seed 7
//
// A third of the packets go through a connection table with plenty of room, a third through one in
// which buckets overflow, a third through one that is too small; with each instruction set that the
// processor has.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ostream>
#include <random>

#include "tests/reference/dice.hpp"
#include "tests/reference/estate.hpp"
#include "tests/reference/traffic.hpp"
#include "tests/reference/world.hpp"

namespace sluice::reference {
namespace {

using sluice::connection::best_instruction_set;
using sluice::connection::instruction_set;

struct {
  std::uint64_t packets{1'000'000};
  std::uint64_t seed{1};
} settings;

// Of all runs together.
std::uint64_t done_packets = 0;
std::array<std::uint64_t, abi::counter_count> occurred{};

// How full the table of connections gets: hardly, so that buckets overflow, or quite.
enum class filling { roomy, crowded, full };

struct kind_of_run {
  const char* name;
  instruction_set instructions;
  filling table;
};

constexpr std::array<kind_of_run, 9> all_runs{
    {{"scalar", instruction_set::scalar, filling::roomy},
     {"avx2", instruction_set::avx2, filling::roomy},
     {"avx512", instruction_set::avx512, filling::roomy},
     {"scalar_crowded", instruction_set::scalar, filling::crowded},
     {"avx2_crowded", instruction_set::avx2, filling::crowded},
     {"avx512_crowded", instruction_set::avx512, filling::crowded},
     {"scalar_full", instruction_set::scalar, filling::full},
     {"avx2_full", instruction_set::avx2, filling::full},
     {"avx512_full", instruction_set::avx512, filling::full}}};

bool runs_here(const kind_of_run& k) {
  return k.instructions <= best_instruction_set();
}

// kind_of() is 0 for the frames that nearly all traffic is made of, of IPv4, 1 of IPv6; others: 2.
int kind_of(const frame& f) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(f.bytes.data());
  const auto total = static_cast<std::uint32_t>(f.bytes.size());
  if (f.contiguous >= wire::common4_length && wire::parse_common4(bytes, total) != 0) return 0;
  return f.contiguous >= wire::common6_length && wire::parse_common6(bytes, total) != 0 ? 1 : 2;
}
bool comes_before(const frame& a, const frame& b) {
  return kind_of(a) < kind_of(b);
}

// whole_table() is how many calls of maintain() go once round.
constexpr unsigned whole_table = 6000;

void PrintTo(const kind_of_run& k, std::ostream* to) {
  *to << k.name;
}

class differential : public ::testing::TestWithParam<kind_of_run> {};

TEST_P(differential, PathAndModelAgree) {
  if (!runs_here(GetParam())) GTEST_SKIP() << "not on this processor";
  const auto runs =
      static_cast<std::uint64_t>(std::count_if(all_runs.begin(), all_runs.end(), runs_here));
  const std::uint64_t packets = settings.packets / runs;
  const bool crowded = GetParam().table == filling::crowded;
  const bool full = GetParam().table == filling::full;
  std::printf("seed %lu, %lu packets\n", static_cast<unsigned long>(settings.seed),
              static_cast<unsigned long>(packets));
  dice d{settings.seed * 100 + static_cast<unsigned>(GetParam().instructions) * 2 +
         (crowded ? 1
          : full  ? 10
                  : 0)};
  // Which connection has to give way to a newcomer within a burst the model is told afterwards:
  // too late for least connections.
  description estate = first_estate(d, !crowded);
  if (full) keep_steady(estate, d);
  world w{full ? 300u : crowded ? 1250u : 100'000u, GetParam().instructions, full};
  traffic source{d, crowded ? 1500u : 3000u};
  w.use(estate);
  source.serve(estate);
  // The connections never fill more than this many percent, so that none has to give way to
  // another but for closed ones, which do so gladly.
  const std::uint64_t most = full ? 100 : crowded ? 50 : 5;

  std::vector<frame> burst;
  std::uint64_t bursts = 0;
  for (std::uint64_t done = 0; done < packets; done += burst.size(), ++bursts) {
    burst.resize(d.chance(20) ? d.between(257, 600) : d.between(1, 256));
    for (frame& f : burst) {
      do f = source.next();
      while (w.unknown(f));
    }
    // Common packets in a row are dealt with in groups; elsewhere they seldom come so.
    if (d.chance(50)) std::stable_sort(burst.begin(), burst.end(), comes_before);
    const auto at = [&] { return "burst " + std::to_string(bursts) + ", "; };
    std::string wrong;
    // What has given way to others in the first part of a long burst the model learns too late.
    const std::size_t part = crowded ? packet_path::max_burst : burst.size();
    for (std::size_t first = 0; first < burst.size() && wrong.empty(); first += part)
      wrong = w.run(
          {burst.begin() + static_cast<std::ptrdiff_t>(first),
           burst.begin() + static_cast<std::ptrdiff_t>(std::min(first + part, burst.size()))});
    ASSERT_TRUE(wrong.empty()) << wrong << at() << "seed " << settings.seed;
    w.pass(d.below(100'000'000));
    if (d.chance(20)) w.pass(std::uint64_t{d.between(1, 40)} * 1'000'000'000);
    if (d.chance(30)) wrong = w.maintain(d.between(1, 20));
    ASSERT_TRUE(wrong.empty()) << wrong << at() << "after maintenance, seed " << settings.seed;
    if (w.load() > most) {
      w.pass(1'100'000'000'000);
      wrong = w.maintain(whole_table);
      ASSERT_TRUE(wrong.empty()) << wrong << at() << "after all have expired, seed "
                                 << settings.seed;
      ASSERT_EQ(w.tracked(), 0u) << at();
    }
    if (d.chance(30)) {
      std::vector<ends> names;
      for (const auto& [client, s] : w.model().sessions()) names.push_back(s.reply());
      source.reply_to(std::move(names));
    }
    if (d.chance(10)) {
      wrong = w.compare();
      ASSERT_TRUE(wrong.empty()) << wrong << at() << "seed " << settings.seed;
    }
    if (!full && d.chance(40)) {
      change(estate, d);
      w.use(estate);
    }
  }
  ASSERT_EQ(w.compare(), "");
  done_packets += packets;
  for (std::size_t i = 0; i < occurred.size(); ++i)
    occurred[i] += w.count_of(static_cast<abi::counter_id>(i));
}

// What was to be seen, was seen.
class everything_occurs : public ::testing::Environment {
  void TearDown() override {
    for (std::size_t i = 0; i < occurred.size(); ++i)
      if (occurred[i] != 0)
        std::printf("  %-28s %lu\n", std::string{abi::counter_infos[i].name}.c_str(),
                    static_cast<unsigned long>(occurred[i]));
    if (done_packets < 500'000) return;
    using enum abi::counter_id;
    for (const abi::counter_id id : {forwarded,
                                     to_kernel,
                                     connection_hits,
                                     connections_opened,
                                     connections_closed,
                                     connections_expired,
                                     connections_moved,
                                     drop_not_for_us,
                                     drop_truncated,
                                     drop_bad_ipv4_header,
                                     drop_bad_ipv4_checksum,
                                     drop_bad_ipv6_header,
                                     drop_bad_l4_header,
                                     drop_ttl_expired,
                                     drop_bad_source,
                                     drop_fragment,
                                     drop_unsupported_protocol,
                                     drop_no_service_port,
                                     drop_no_backend,
                                     drop_no_next_hop,
                                     drop_too_big,
                                     drop_no_headroom,
                                     drop_bad_table,
                                     drop_no_tables,
                                     icmp_echo_answered,
                                     icmp_too_big_sent,
                                     mss_clamped,
                                     drop_bad_icmp,
                                     nat_replies,
                                     nat_sessions_opened,
                                     nat_sessions_closed,
                                     drop_nat_unmatched,
                                     drop_nat_no_port,
                                     fragments_followed,
                                     fragments_waited})
      EXPECT_GT(occurred[static_cast<std::size_t>(id)], 0u)
          << abi::counter_infos[static_cast<std::size_t>(id)].name << " did not occur";
  }
};

INSTANTIATE_TEST_SUITE_P(runs, differential, ::testing::ValuesIn(all_runs),
                         [](const auto& i) { return std::string{i.param.name}; });

}  // namespace
}  // namespace sluice::reference

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  CLI::App app{"The packet path against its reference model."};
  bool any = false;
  app.add_option("--packets", sluice::reference::settings.packets, "how many, all runs together");
  app.add_option("--seed", sluice::reference::settings.seed, "of the random numbers");
  app.add_flag("--any-seed", any, "another seed every time");
  CLI11_PARSE(app, argc, argv);
  if (any) sluice::reference::settings.seed = std::random_device{}();
  ::testing::AddGlobalTestEnvironment(new sluice::reference::everything_occurs);
  return RUN_ALL_TESTS();
}
