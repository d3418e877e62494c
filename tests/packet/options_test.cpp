// SPDX-License-Identifier: Apache-2.0
// What services ask for by their options: lists, limits, persistence, as packets see them.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/packet/options_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

TEST(rate_limit, holds_one_second_and_refills) {
  for (const std::uint32_t rate : {1u, 3u, 7u, 1000u, 999'983u}) {
    rate_limit limit;
    std::uint64_t now = 5'000'000'000'000;
    std::uint64_t passed = 0;
    for (std::uint32_t i = 0; i < rate + rate / 50 + 10; ++i) passed += limit.take(rate, now);
    EXPECT_NEAR(static_cast<double>(passed), rate, rate / 10'000) << "burst";
    // A hundred seconds of twice as many: the rate passes.
    passed = 0;
    for (std::uint64_t i = 0; i < 200 * std::uint64_t{std::min(rate, 1000u)}; ++i) {
      now += second / (2 * std::min(rate, 1000u));
      passed += limit.take(std::min(rate, 1000u), now);
    }
    EXPECT_NEAR(static_cast<double>(passed), 100.0 * std::min(rate, 1000u), 101) << rate;
  }
}

TEST_F(options, limit_new_connections_of_a_service) {
  ask([](abi::service_options& o) { o.connection_rate = 10; });
  bench b{view()};
  unsigned sent = 0;
  for (unsigned n = 0; n < 50; ++n) {
    const result r = b.run(packet_of(n, syn));
    sent += r.outcome == verdict::forward;
    if (r.outcome != verdict::forward) {
      EXPECT_EQ(r.reason, drop_connection_rate);
    }
  }
  EXPECT_EQ(sent, 10u);
  EXPECT_EQ(b.count(drop_connection_rate), 40u);
  EXPECT_EQ(b.service(abi::service_id{0}).dropped.read(), 40u);
  // The ten go on, as fast as they like; retransmissions, too; connections that began
  // elsewhere are not new.
  for (unsigned k = 0; k < 20; ++k)
    for (unsigned n = 0; n < 10; ++n)
      EXPECT_EQ(b.run(packet_of(n, k == 0 ? syn : ack)).outcome, verdict::forward);
  EXPECT_EQ(b.run(packet_of(9000, ack)).outcome, verdict::forward);
  // A connection that ends and begins again is new.
  b.run(packet_of(0, rst));
  EXPECT_EQ(b.run(packet_of(0, syn)).reason, drop_connection_rate);
  b.now_ns += second / 2;
  sent = 0;
  for (unsigned n = 100; n < 150; ++n) sent += b.run(packet_of(n, syn)).outcome == verdict::forward;
  EXPECT_EQ(sent, 5u);
}

TEST_F(options, limit_new_connections_of_a_source) {
  ask([](abi::service_options& o) {
    o.source_connection_rate = 4;
    o.source_prefix4 = 24;
    o.source_prefix6 = 48;
  });
  bench b{view()};
  unsigned port = 1000;
  const auto burst_from = [&](quad source) {
    unsigned sent = 0;
    for (unsigned n = 0; n < 20; ++n) {
      const result r = b.run(ethernet(0x0800, ip4({.source = source}, tcp({++port, 443, syn}))));
      if (r.outcome != verdict::forward) {
        EXPECT_EQ(r.reason, drop_source_rate);
      }
      sent += r.outcome == verdict::forward;
    }
    return sent;
  };
  EXPECT_EQ(burst_from({203, 0, 113, 7}), 4u);
  EXPECT_EQ(burst_from({203, 0, 113, 250}), 0u) << "the same /24";
  EXPECT_EQ(burst_from({203, 0, 114, 7}), 4u) << "another";
  b.now_ns += second;
  EXPECT_EQ(burst_from({203, 0, 113, 250}), 4u);
  // Ten thousand other sources do not push the busy ones out of their buckets, or in.
  for (unsigned n = 0; n < 10'000; ++n)
    b.run(ethernet(0x0800, ip4({.source = {11, static_cast<std::uint8_t>(n >> 8),
                                           static_cast<std::uint8_t>(n), 1}},
                               tcp({2000, 443, syn}))));
  EXPECT_EQ(b.count(drop_source_rate), 16u + 20 + 16 + 16) << "only the busy ones were limited";
  EXPECT_EQ(burst_from({203, 0, 113, 7}), 0u);
  // IPv6, by 48 bits.
  const auto six = [&](std::uint8_t fourth, std::uint8_t eighth) {
    hexadec source = client6;
    source[5] = fourth;
    source[7] = eighth;
    unsigned sent = 0;
    for (unsigned n = 0; n < 10; ++n)
      sent += b.run(ethernet(0x86dd, ip6({.source = source}, tcp({++port, 443, syn})))).outcome ==
              verdict::forward;
    return sent;
  };
  EXPECT_EQ(six(1, 1), 4u);
  EXPECT_EQ(six(1, 2), 0u);
  EXPECT_EQ(six(2, 1), 4u);
}

TEST_F(options, limit_packets) {
  ask([](abi::service_options& o) { o.packet_rate = 100; });
  tables.service(0).flags |= abi::service_counts_packets;
  bench b{view()};
  unsigned sent = 0;
  b.run(packet_of(0, syn));
  for (unsigned n = 0; n < 500; ++n) {
    const result r = b.run(packet_of(n % 3 == 0 ? n : 0, ack));  // of one connection, and of many
    if (r.outcome != verdict::forward) {
      EXPECT_EQ(r.reason, drop_packet_rate);
      EXPECT_EQ(r.service, abi::service_id{0});
    }
    sent += r.outcome == verdict::forward;
  }
  EXPECT_EQ(sent, 99u);
  EXPECT_EQ(b.service(abi::service_id{0}).dropped.read(), 401u);
  b.now_ns += second / 10;
  sent = 0;
  for (unsigned n = 0; n < 50; ++n) sent += b.run(packet_of(0, ack)).outcome == verdict::forward;
  EXPECT_EQ(sent, 10u);
  // Another service of the same address is not touched; nor this one, once the limit is gone.
  EXPECT_EQ(b.run(packet_of(0, syn, 80)).outcome, verdict::forward);
  tables.service(0).flags = 0;
  b.path().set_view(view());
  for (unsigned n = 0; n < 50; ++n) EXPECT_EQ(b.run(packet_of(0, ack)).outcome, verdict::forward);
}

// A connection's packets that come in one burst with its first one count once, as any.
TEST_F(options, limit_packets_that_come_in_one_burst) {
  ask([](abi::service_options& o) { o.packet_rate = 100; });
  tables.service(0).flags |= abi::service_counts_packets;
  bench b{view()};
  unsigned sent = 0;
  for (unsigned flow = 0; flow < 4; ++flow) {
    std::vector<input> burst;
    burst.push_back({packet_of(flow, syn), wire_port});
    for (unsigned n = 1; n < 50; ++n) burst.push_back({packet_of(flow, ack), wire_port});
    for (const result& r : b.run(burst)) sent += r.outcome == verdict::forward;
  }
  EXPECT_EQ(sent, 100u);
  EXPECT_EQ(b.count(drop_packet_rate), 100u);
}

// A fragment that follows its first one is a packet of the service as well.
TEST_F(options, limit_packets_in_fragments) {
  abi::service_options& o = tables.options(2);
  o.packet_rate = 10;
  tables.service(2).flags |= abi::service_has_options | abi::service_counts_packets;
  bench b{view()};
  const bytes whole = udp({40000, 443}, bytes(40, 7));
  const ip4_fields first{.protocol = 17, .id = 7, .fragment = 0x2000};
  const ip4_fields later{.protocol = 17, .id = 7, .fragment = 3};
  unsigned sent = 0;
  sent += b.run(ethernet(0x0800, ip4(first, bytes(whole.begin(), whole.begin() + 24)))).outcome ==
          verdict::forward;
  for (unsigned n = 0; n < 30; ++n)
    sent += b.run(ethernet(0x0800, ip4(later, bytes(whole.begin() + 24, whole.end())))).outcome ==
            verdict::forward;
  EXPECT_EQ(sent, 10u);
  EXPECT_EQ(b.count(drop_packet_rate), 21u);
  EXPECT_EQ(b.service(abi::service_id{2}).dropped.read(), 21u);
}

TEST_F(options, deny_and_allow) {
  const auto from = [](quad source, unsigned port, unsigned flags) {
    return ethernet(0x0800, ip4({.source = source}, tcp({port, 443, flags})));
  };
  const std::uint16_t bad = add_list({{0xcb007100, 0xcb0071ff}});   // 203.0.113.0/24
  const std::uint16_t good = add_list({{0xcb000000, 0xcb00ffff}});  // 203.0.0.0/16
  bench b{view()};
  b.run(from({203, 0, 113, 7}, 1000, syn));
  ask([&](abi::service_options& o) { o.deny_list = bad; });
  b.path().set_view(view());
  EXPECT_EQ(b.run(from({203, 0, 113, 8}, 1000, syn)).reason, drop_denied);
  EXPECT_EQ(b.run(from({203, 0, 113, 8}, 1000, ack)).reason, drop_denied);
  EXPECT_EQ(b.run(from({203, 0, 112, 8}, 1000, syn)).outcome, verdict::forward);
  EXPECT_EQ(b.run(from({203, 0, 113, 7}, 1000, ack)).outcome, verdict::forward)
      << "lists are for new connections";
  b.run(from({203, 0, 113, 7}, 1000, rst));
  EXPECT_EQ(b.run(from({203, 0, 113, 7}, 1000, syn)).reason, drop_denied);
  ask([&](abi::service_options& o) { o.allow_list = good; });
  b.path().set_view(view());
  EXPECT_EQ(b.run(from({203, 0, 113, 9}, 1000, syn)).reason, drop_denied) << "deny goes first";
  EXPECT_EQ(b.run(from({203, 0, 112, 9}, 1001, syn)).outcome, verdict::forward);
  EXPECT_EQ(b.run(from({203, 1, 112, 9}, 1000, syn)).reason, drop_denied);
  EXPECT_EQ(b.run(ethernet(0x86dd, ip6({}, tcp({1, 443, syn})))).outcome, verdict::forward)
      << "another service";
  EXPECT_EQ(b.count(drop_denied), 5u);
}

// The table of the service changes under way: old sources stay, new ones follow the table.
TEST_F(options, persistence) {
  ask([](abi::service_options& o) {
    o.persistence_timeout = 300;
    o.persistence_prefix4 = 24;
    o.persistence_prefix6 = 64;
  });
  const auto from = [](unsigned net, unsigned host, unsigned port, unsigned flags) {
    return ethernet(
        0x0800,
        ip4({.source = {203, 0, static_cast<std::uint8_t>(net), static_cast<std::uint8_t>(host)}},
            tcp({port, 443, flags})));
  };
  for (const auto kind :
       {abi::scheduler::maglev, abi::scheduler::round_robin, abi::scheduler::least_connections}) {
    tables.service(0).kind = kind;
    set_table(0, {0, 1, 2, 3});
    bench b{view()};
    bench other{view(), 4096, bench_ports, 99};
    std::map<unsigned, abi::backend_ref> where;
    std::set<std::uint32_t> used;
    for (unsigned net = 0; net < 100; ++net) {
      where[net] = b.run(from(net, 1, 1000, syn)).backend;
      used.insert(where[net].index());
      EXPECT_EQ(b.run(from(net, 2, 2000, syn)).backend, where[net]) << "the same prefix";
      EXPECT_EQ(other.run(from(net, 3, 3000, syn)).backend, where[net]) << "another worker";
    }
    EXPECT_EQ(used.size(), 4u);
    EXPECT_EQ(b.count(persistence_hits), 100u);
    // Everything goes to member 1 by the table now.
    set_table(0, {1});
    b.path().set_view(view());
    for (unsigned net = 0; net < 100; ++net) {
      EXPECT_EQ(b.run(from(net, 4, 4000, syn)).backend, where[net]);
      EXPECT_EQ(b.run(from(net, 5, 5000, ack)).backend, where[net]) << "no entry";
      EXPECT_EQ(b.run(from(net, 5, 6000, rst)).backend, where[net]) << "never an entry";
    }
    EXPECT_EQ(b.run(from(200, 4, 4000, syn)).backend.index(), 1u);
    // Member 2 is drained: its sources go by the table.
    tables.backend(2).weight = 0;
    b.path().set_view(view());
    for (unsigned net = 0; net < 100; ++net)
      EXPECT_EQ(b.run(from(net, 6, 7000, syn)).backend.index(),
                where[net].index() == 2 ? 1u : where[net].index());
    tables.backend(2).weight = 1;
    b.path().set_view(view());
    for (unsigned net = 0; net < 100; ++net)
      if (where[net].index() == 2) {
        EXPECT_EQ(b.run(from(net, 6, 7001, syn)).backend.index(), 1u);
      }
    // Renewed by each connection, gone after the timeout.
    b.now_ns += 250 * second;
    b.run(from(0, 1, 8000, syn));
    b.now_ns += 250 * second;
    const std::uint64_t before = b.count(persistence_hits);
    b.run(from(0, 1, 8001, syn));
    EXPECT_EQ(b.count(persistence_hits), before + 1);
    for (unsigned net = 1; net < 100; ++net)
      EXPECT_EQ(b.run(from(net, 6, 9000, syn)).backend.index(), 1u);
    EXPECT_EQ(b.count(persistence_hits), before + 1);
  }
}

// A source's connections come to any worker; the service's table changes in between.
TEST_F(options, persistence_over_workers) {
  ask([](abi::service_options& o) {
    o.persistence_timeout = 300;
    o.persistence_prefix4 = 32;
    o.persistence_prefix6 = 128;
  });
  persistence_table shared{{1, 2}, 3};
  std::vector<std::unique_ptr<bench>> workers;
  for (unsigned w = 0; w < 3; ++w) {
    workers.push_back(std::make_unique<bench>(view(), 4096, bench_ports, 100 + w));
    workers.back()->path().use_persistence(shared);
  }
  const auto from = [](unsigned host, unsigned port) {
    return ethernet(0x0800, ip4({.source = {203, 0, 113, static_cast<std::uint8_t>(host)}},
                                tcp({port, 443, syn})));
  };
  std::map<unsigned, abi::backend_ref> where;
  for (unsigned host = 1; host < 100; ++host)
    where[host] = workers[host % 3]->run(from(host, 1000)).backend;
  set_table(0, {1});
  for (unsigned w = 0; w < 3; ++w) {
    // The workers look at the clock at different times.
    workers[w]->now_ns += (3 - w) * second;
    workers[w]->path().set_view(view());
    for (unsigned host = 1; host < 100; ++host)
      EXPECT_EQ(workers[w]->run(from(host, 2000 + w)).backend, where[host]) << w;
  }
}

TEST(persistence_table, the_oldest_gives_way) {
  const auto table = std::make_unique<persistence_table>(std::array<std::uint64_t, 2>{1, 2});
  const auto key = [](std::uint64_t n) { return n << 2 | 1; };  // all in one set
  for (std::uint32_t n = 0; n < 5; ++n) table->enter(key(n), {n}, 100 + n);
  EXPECT_TRUE(table->find(key(0), 105, 300).none());
  for (std::uint32_t n = 1; n < 5; ++n) EXPECT_EQ(table->find(key(n), 105, 300).value, n);
  EXPECT_TRUE(table->find(key(1), 500, 300).none());
}

// Options that no control plane of ours writes.
TEST_F(options, impossible_values) {
  ask([](abi::service_options& o) {
    o.persistence_timeout = 65535;
    o.persistence_prefix4 = o.persistence_prefix6 = o.source_prefix4 = o.source_prefix6 = 255;
    o.source_connection_rate = o.connection_rate = o.syn_flood_rate = ~0u;
    o.deny_list = 7;  // not there: nobody is in it
    o.quic_id_length = 200;
    o.quic_id_offset = 255;
  });
  bench b{view()};
  EXPECT_EQ(b.run(packet_of(1, syn)).outcome, verdict::forward);
  EXPECT_EQ(b.run(packet_of(1, ack)).outcome, verdict::forward);
  ask([](abi::service_options& o) { o.allow_list = 8; });
  b.path().set_view(view());
  EXPECT_EQ(b.run(packet_of(2, syn)).reason, drop_denied);
}

}  // namespace
}  // namespace sluice::test
