// SPDX-License-Identifier: Apache-2.0
// How each scheduler spreads new connections, as packets through the path see it. The tables
// are made here as the control plane promises them (abi/service_table.hpp).
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "dataplane/abi/stateless_choice.hpp"
#include "tests/packet/bench.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;
using abi::scheduler;

constexpr std::uint8_t all_flags =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
constexpr unsigned syn = 0x02;
constexpr unsigned ack = 0x10;
constexpr unsigned rst = 0x04;
constexpr unsigned members = 5;
constexpr std::array<unsigned, members> weights{1, 2, 3, 5, 9};  // 20 together

struct world : table_builder {
  // slots: the table; empty: none.
  world(scheduler kind, const std::vector<std::uint16_t>& slots) {
    std::vector<backend_spec> backends;
    for (std::uint8_t i = 0; i < members; ++i)
      backends.push_back({ip_address::v4({10, 0, 0, i}), {2, 0, 0, 0, 0xb, i}, 0, 1500, all_flags});
    for (const auto protocol : {ip_proto::tcp, ip_proto::udp}) {
      const auto id = static_cast<std::uint32_t>(add_service(
          ip_address::v4({198, 51, 100, 10}), protocol, 443, 443, abi::forward_mode::dsr_l2,
          backends, static_cast<std::uint32_t>(slots.size())));
      service(id).kind = kind;
      for (std::uint32_t i = 0; i < slots.size(); ++i) set_slot(service(id), i, slots[i]);
    }
    for (unsigned i = 0; i < 2 * members; ++i) backend(i).weight = weights[i % members];
  }
};

// packet_of() is the n-th flow's.
bytes packet_of(unsigned n, unsigned flags = syn, std::uint8_t host = 7) {
  return ethernet(0x0800, ip4({.source = {203, static_cast<std::uint8_t>(n >> 14), 113, host}},
                              tcp({1024 + (n & 0x3fff), 443, flags})));
}
bytes datagram_of(unsigned n) {
  return ethernet(0x0800, ip4({.protocol = 17}, udp({1024 + n, 443})));
}

// once() has every member once; by_weight() is the smooth sequence of one cycle: the next is
// always who is furthest behind his due.
std::vector<std::uint16_t> once() {
  std::vector<std::uint16_t> v(members);
  std::iota(v.begin(), v.end(), std::uint16_t{0});
  return v;
}
std::vector<std::uint16_t> by_weight() {
  std::vector<std::uint16_t> out;
  std::array<int, members> due{};
  for (int n = 0; n < 20; ++n) {
    for (unsigned i = 0; i < members; ++i) due[i] += static_cast<int>(weights[i]);
    const auto best = static_cast<unsigned>(std::max_element(due.begin(), due.end()) - due.begin());
    due[best] -= 20;
    out.push_back(static_cast<std::uint16_t>(best));
  }
  return out;
}

std::vector<unsigned> sequence(bench& b, unsigned count, unsigned from = 0) {
  std::vector<unsigned> out;
  for (unsigned n = from; n < from + count;) {
    std::vector<input> burst;
    for (unsigned k = 0; k < 32 && n < from + count; ++k, ++n) burst.push_back({packet_of(n)});
    for (const result& r : b.run(burst)) {
      EXPECT_EQ(r.outcome, verdict::forward);
      out.push_back(r.backend.index());
    }
  }
  return out;
}
std::array<unsigned, members> tally(const std::vector<unsigned>& s) {
  std::array<unsigned, members> n{};
  for (const unsigned i : s) ++n.at(i);
  return n;
}
// chi_square() of 4 degrees of freedom exceeds 18.5 once in 1000 times; the generator's seed
// is fixed.
double chi_square(const std::array<unsigned, members>& n,
                  const std::array<double, members>& share) {
  const double all = std::accumulate(n.begin(), n.end(), 0.0);
  double sum = 0;
  for (unsigned i = 0; i < members; ++i) {
    const double expected = all * share[i];
    sum += (n[i] - expected) * (n[i] - expected) / expected;
  }
  return sum;
}
constexpr std::array<double, members> equal_shares{0.2, 0.2, 0.2, 0.2, 0.2};
constexpr std::array<double, members> weight_shares{0.05, 0.1, 0.15, 0.25, 0.45};

TEST(schedulers, that_hash_go_by_the_flow) {
  for (const scheduler kind :
       {scheduler::maglev, scheduler::ring_hash, scheduler::partitioned_hash}) {
    world w{kind, by_weight()};
    bench one{w.view()};
    bench other{w.view()};
    const auto s = sequence(one, 8000);
    EXPECT_EQ(s, sequence(other, 8000)) << "another worker chooses otherwise";
    EXPECT_LT(chi_square(tally(s), weight_shares), 18.5);
  }
}

TEST(schedulers, source_hash_looks_at_the_source_alone) {
  world w{scheduler::source_hash, by_weight()};
  bench b{w.view(), 65536};
  std::vector<unsigned> firsts;
  for (unsigned host = 1; host < 250; ++host) {
    const auto at = static_cast<std::uint8_t>(host);
    const std::uint32_t first = b.run(packet_of(0, syn, at)).backend.index();
    firsts.push_back(first);
    for (unsigned n = 1; n < 20; ++n) {
      EXPECT_EQ(b.run(packet_of(n * 77, syn, at)).backend.index(), first);
      EXPECT_EQ(b.run(packet_of(n * 77 + 8000, ack, at)).backend.index(), first);
    }
    const std::uint32_t source = 203u | 113u << 16 | host << 24;  // as it lies in memory
    EXPECT_EQ(first, by_weight()[sluice_slot(sluice_source_hash4(42, source), 20)]);
  }
  EXPECT_LT(chi_square(tally(firsts), weight_shares), 18.5);
}

TEST(schedulers, round_robin_is_exact_per_worker) {
  world w{scheduler::round_robin, once()};
  bench b{w.view()};
  const auto s = sequence(b, 2000);
  for (std::size_t i = 1; i < s.size(); ++i) ASSERT_EQ(s[i], (s[i - 1] + 1) % members);
}

TEST(schedulers, weighted_round_robin_is_exact_and_smooth) {
  world w{scheduler::weighted_round_robin, by_weight()};
  bench b{w.view()};
  const auto s = sequence(b, 2000);
  // Any 20 in a row hold everybody's exact share; any n in a row are at most one off it.
  for (std::size_t from = 0; from + 20 <= s.size(); ++from) {
    std::array<unsigned, members> n{};
    for (std::size_t i = 0; i < 20; ++i) {
      ++n.at(s[from + i]);
      for (unsigned k = 0; k < members; ++k)
        ASSERT_LE(std::abs(n[k] - static_cast<double>(i + 1) * weight_shares[k]), 2.0)
            << "member " << k << ", " << i + 1 << " from " << from;
    }
    for (unsigned k = 0; k < members; ++k) ASSERT_EQ(n[k], weights[k]);
  }
}

// What is not a new connection takes no turn.
TEST(schedulers, only_new_connections_take_a_turn) {
  world w{scheduler::round_robin, once()};
  bench b{w.view()};
  unsigned last = b.run(packet_of(0)).backend.index();
  for (unsigned n = 1; n < 200; ++n) {
    // The SYN twice, an ACK, all in one burst; a stray RST; data of another connection.
    const auto out = b.run({{packet_of(n)}, {packet_of(n)}, {packet_of(n, ack)}});
    EXPECT_EQ(out[0].backend.index(), (last + 1) % members);
    EXPECT_EQ(out[1].backend, out[0].backend);
    EXPECT_EQ(out[2].backend, out[0].backend);
    last = out[0].backend.index();
    b.run(packet_of(n + 5000, rst));
    b.run(packet_of(n + 9000, ack));
  }
}

TEST(schedulers, workers_do_not_all_begin_with_the_same_member) {
  world w{scheduler::round_robin, once()};
  std::set<unsigned> firsts;
  for (std::uint64_t secret = 1; secret < 60; ++secret) {
    bench b{w.view(), 64, bench_ports, secret};
    firsts.insert(b.run(packet_of(0)).backend.index());
  }
  EXPECT_EQ(firsts.size(), members);
}

TEST(schedulers, random_is_random) {
  world w{scheduler::random, once()};
  bench b{w.view(), 65536};
  const auto s = sequence(b, 20'000);
  EXPECT_LT(chi_square(tally(s), equal_shares), 18.5);
  // No pattern in pairs: 25 cells, 24 degrees of freedom, 51.2 at one in 1000.
  std::array<double, 25> pairs{};
  for (std::size_t i = 0; i + 1 < s.size(); i += 2) ++pairs[s[i] * 5 + s[i + 1]];
  double sum = 0;
  for (const double n : pairs) sum += (n - 400) * (n - 400) / 400;
  EXPECT_LT(sum, 51.2);
}

TEST(schedulers, weighted_random_follows_the_weights) {
  world w{scheduler::weighted_random, by_weight()};
  bench b{w.view(), 65536};
  EXPECT_LT(chi_square(tally(sequence(b, 20'000)), weight_shares), 18.5);
}

TEST(schedulers, least_connections_is_even_at_any_moment) {
  world w{scheduler::least_connections, {}};
  bench b{w.view(), 65536};
  for (unsigned n = 0; n < 1000; n += 7) {
    sequence(b, 7, n);
    std::uint64_t low = ~0ull;
    std::uint64_t high = 0;
    for (unsigned k = 0; k < members; ++k) {
      low = std::min(low, b.backend(k).opened.read());
      high = std::max(high, b.backend(k).opened.read());
    }
    ASSERT_LE(high - low, 1u);
  }
}

// A service of 257 members has wide slots: a packet goes where its hash says all the same, beside
// services with narrow ones and in one burst with theirs.
TEST(schedulers, slots_of_either_width) {
  constexpr std::array<unsigned, 3> sizes{256, 257, 1};
  table_builder tables{{4, 1024, 1 << 20}};
  const auto vip = [](std::size_t i) {
    return ip_address::v4({198, 51, 100, static_cast<std::uint8_t>(10 + i)});
  };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<table_builder::backend_spec> backends;
    for (unsigned k = 0; k < sizes[i]; ++k)
      backends.push_back(
          {ip_address::v4({10, static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(k >> 8),
                           static_cast<std::uint8_t>(k)}),
           {2, 0, 0, 0, 0xb, 1},
           0,
           1500,
           all_flags});
    (void)tables.add_service(vip(i), ip_proto::tcp, 443, 443, abi::forward_mode::dsr_l2, backends,
                             4099);
  }
  const auto view = tables.view();
  bench b{view, 65536};
  std::map<std::uint32_t, unsigned> reached;
  for (unsigned first = 0; first < 9000; first += 30) {
    std::vector<input> burst;
    for (unsigned n = first; n < first + 30; ++n)
      burst.push_back({ethernet(
          0x0800, ip4({.source = {203, 0, 113, 7},
                       .destination = {198, 51, 100, static_cast<std::uint8_t>(10 + n % 3)}},
                      tcp({1024 + n, 443, syn})))});
    const auto results = b.run(burst);
    for (unsigned n = first; n < first + 30; ++n) {
      const result& r = results[n - first];
      const std::uint64_t hash = sluice_flow_hash4(
          view.header().hash_seed, ip_address::v4({203, 0, 113, 7}).v4_raw().raw(),
          vip(n % 3).v4_raw().raw(), be16{static_cast<std::uint16_t>(1024 + n)}.raw(),
          be16{443}.raw(), 6);
      const abi::service_row& s = tables.service(n % 3);
      ASSERT_EQ(r.outcome, verdict::forward);
      ASSERT_EQ(r.backend, view.member(s, sluice_slot(hash, s.table_size) % s.member_count)) << n;
      ++reached[r.backend.index()];
    }
  }
  EXPECT_EQ(reached.count(256 + 256), 1u) << "the member that one byte cannot name";
}

// The one whose connections end, or that comes anew, is filled up first.
TEST(schedulers, least_connections_evens_out) {
  world w{scheduler::least_connections, once()};
  bench b{w.view(), 65536};
  w.service(0).member_count = 4;  // the fifth comes later
  w.service(0).table_size = 4;
  b.path().set_view(w.view());
  sequence(b, 4000);
  const auto open = [&](unsigned k) {
    return b.backend(k).opened.read() - b.backend(k).closed.read();
  };
  for (unsigned k = 0; k < 4; ++k) EXPECT_EQ(open(k), 1000u);
  w.service(0).member_count = 5;
  w.service(0).table_size = 5;
  b.path().set_view(w.view());
  const auto s = sequence(b, 1000, 5000);
  EXPECT_EQ(tally(s)[4], 1000u);
  const auto later = tally(sequence(b, 500, 8000));
  for (unsigned k = 0; k < members; ++k) EXPECT_EQ(later[k], 100u);
  // Connections that are closed and swept count no more.
  for (unsigned n = 0; n < 4000; ++n)
    if (n % 2 == 0) b.run(packet_of(n, rst));
  b.now_ns += 15'000'000'000;
  for (int i = 0; i < 20'000; ++i) b.path().maintain(b.now_ns += 1'000'000);
  std::uint64_t all = 0;
  for (unsigned k = 0; k < members; ++k) all += open(k);
  EXPECT_EQ(all, b.table().v4.size());
}

TEST(schedulers, weighted_least_connections_follows_the_weights) {
  world w{scheduler::weighted_least_connections, {}};
  bench b{w.view(), 65536};
  for (unsigned n = 0; n < 4000; n += 20) {
    sequence(b, 20, n);
    for (unsigned k = 0; k < members; ++k)
      ASSERT_NEAR(static_cast<double>(b.backend(k).opened.read()), (n + 20) * weight_shares[k],
                  1.0);
  }
}

// The connections of other workers count; they are read between bursts.
TEST(schedulers, least_connections_counts_other_workers) {
  world w{scheduler::least_connections, {}};
  std::vector<abi::backend_counters> other(4096);
  const std::array<const abi::backend_counters*, 1> others{other.data()};
  bench b{w.view(), 65536, bench_ports, 1, others, 77};
  sequence(b, 5);
  other[0].opened.add(300);
  other[1].opened.add(200);
  other[1].closed.add(100);
  b.path().maintain(b.now_ns);
  const auto n = tally(sequence(b, 1000, 100));
  // 1 + 300, 1 + 100, 1, 1, 1 and 1000 more: 1405 / 5 = 281, but the first has more already.
  EXPECT_EQ(n[0], 0u);
  EXPECT_EQ(n[1], 175u);
  for (unsigned k = 2; k < members; ++k) EXPECT_NEAR(n[k], 275, 1);
  // A row's sums from before it was this backend's do not count.
  auto& cold = *const_cast<abi::backend_cold*>(w.view().cold(w.member(0)));
  cold.base_opened = 300;
  w.header().base_instance = 77;
  b.path().set_view(w.view());
  b.path().maintain(b.now_ns);
  EXPECT_EQ(tally(sequence(b, 100, 3000))[0], 100u);
}

// Without room in the connection table every datagram of a flow, and every packet of a
// connection, still goes to one backend: by the hash.
TEST(schedulers, agree_without_a_table_entry) {
  for (const scheduler kind :
       {scheduler::round_robin, scheduler::weighted_round_robin, scheduler::random,
        scheduler::weighted_random, scheduler::least_connections,
        scheduler::weighted_least_connections}) {
    for (const bool table : {true, false}) {
      if (!table && kind < scheduler::least_connections) continue;
      world w{kind, table ? by_weight() : std::vector<std::uint16_t>{}};
      bench b{w.view(), 8};  // 24 places
      for (unsigned n = 60'000; n < 60'100; ++n)
        for (int k = 0; k < 3; ++k) b.run(datagram_of(n - 50'000));  // fill it with `udp`
      ASSERT_EQ(b.table().v4.size(), b.table().v4.capacity());
      const std::uint64_t before = b.count(connections_untracked);
      for (unsigned n = 0; n < 200; ++n) {
        const auto first = b.run(datagram_of(n)).backend;
        for (int k = 0; k < 3; ++k) EXPECT_EQ(b.run(datagram_of(n)).backend, first);
      }
      EXPECT_EQ(b.count(connections_untracked) - before, 800u);
    }
  }
}

// A connection whose backend went down is scheduled anew, and stays where it comes to.
TEST(schedulers, choose_for_connections_that_move) {
  for (const scheduler kind : {scheduler::round_robin, scheduler::least_connections}) {
    world w{kind, once()};
    bench b{w.view()};
    const auto s = sequence(b, 1000);
    w.backend(4).flags = abi::backend_in_use;
    w.service(0).member_count = 4;
    w.service(0).table_size = 4;
    b.path().set_view(w.view());
    std::array<unsigned, members> moved{};
    for (unsigned n = 0; n < 1000; ++n) {
      const auto at = b.run(packet_of(n, ack)).backend;
      EXPECT_EQ(b.run(packet_of(n, ack)).backend, at);
      if (s[n] != 4) {
        EXPECT_EQ(at.index(), s[n]);
      } else {
        ++moved.at(at.index());
      }
    }
    EXPECT_EQ(moved, (std::array<unsigned, members>{50, 50, 50, 50, 0}));
  }
}

TEST(schedulers, impossible_tables_are_dropped) {
  for (unsigned kind = 0; kind < 14; ++kind) {
    world w{static_cast<scheduler>(kind), once()};
    const auto reason = [&] {
      bench b{w.view()};
      const result r = b.run(packet_of(1));
      return r.outcome == verdict::drop ? r.reason : abi::counter_id::count_;
    };
    EXPECT_EQ(reason(), abi::counter_id::count_);
    w.member(0) = w.member(1) = w.member(2) = w.member(3) = w.member(4) =
        abi::backend_ref::make(7, 3);  // another service's
    EXPECT_EQ(reason(), drop_bad_table);
    for (unsigned i = 0; i < members; ++i) w.member(i) = {};
    EXPECT_EQ(reason(), drop_bad_table);
    w.service(0).member_first = 0xfffffff0;
    EXPECT_EQ(reason(), drop_bad_table);
  }
}

}  // namespace
}  // namespace sluice::test
