// SPDX-License-Identifier: Apache-2.0
// Fragments of datagrams in every order: all of them at the backend of the first, none of
// them lost, none of them held for ever.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "tests/packet/bench.hpp"
#include "tests/packet/fragment_builder.hpp"
#include "tests/packet/rows.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr std::uint64_t millisecond = 1'000'000;

bytes hop4(bytes packet) {
  --packet[8];
  packet[10] = packet[11] = 0;
  const unsigned sum = checksum_of(packet, 0, (packet[0] & 0xfu) * 4);
  packet[10] = static_cast<std::uint8_t>(sum >> 8);
  packet[11] = static_cast<std::uint8_t>(sum);
  return packet;
}
bytes hop6(bytes packet) {
  --packet[7];
  return packet;
}

// A datagram of four fragments, the frames that they arrive in, and those that must leave.
struct sequence {
  std::string what;
  std::vector<bytes> in;
  std::vector<bytes> out;
};

std::vector<sequence> sequences() {
  std::vector<sequence> all;
  bytes payload(60, 0);
  std::iota(payload.begin(), payload.end(), std::uint8_t{1});
  const auto add4 = [&](std::string what, const ip4_fields& f, const bytes& l4, auto&& sent_as,
                        const std::vector<tag>& tags = {}) {
    sequence s{std::move(what), {}, {}};
    for (const bytes& packet : cut4(f, l4, 24)) {
      s.in.push_back(ethernet(0x0800, packet, tags));
      s.out.push_back(sent_as(packet, s.out.empty()));
    }
    all.push_back(std::move(s));
  };
  const auto tunnel = [](unsigned service, const std::vector<tag>& tags = {}) {
    return [=](const bytes& packet, bool) {
      return framed(service, 0x0800, in4(hop4(packet), 4), tags);
    };
  };
  const ip4_fields dns{.protocol = 17, .fragment = 0};
  add4("UDP 4in4", dns, udp({}, payload), tunnel(dns4));
  add4("UDP 4in4, QinQ", dns, udp({40001}, payload), tunnel(dns4, {{0x88a8, 9}, {0x8100, 8}}),
       {{0x88a8, 9}, {0x8100, 8}});
  add4("TCP 4in4", {}, tcp({40002, 443, 0x18}, payload), tunnel(web_4in4));
  ip4_fields options = dns;
  options.options = bytes(12, 1);
  add4("UDP 4in4, IP options", options, udp({40003}, payload), tunnel(dns4));
  add4("TCP dsr-l2", {.destination = {198, 51, 100, 11}}, tcp({40004, 80, 0x18}, payload),
       [](const bytes& packet, bool) { return framed(dsr4, 0x0800, packet); });
  // The label and the port of the first come from its ports, the others have none.
  add4("TCP 4in6", {}, tcp({40005, 80, 0x18}, payload), [](const bytes& packet, bool first) {
    const ip4_fields f;
    return framed(web_4in6, 0x86dd,
                  in6(hop4(packet), 4, first ? label4(f, 40005, 80) : label4(f, 0, 0)));
  });
  const ip4_fields gue_ip{.destination = {198, 51, 100, 14}, .protocol = 17, .fragment = 0};
  add4("UDP gue", gue_ip, udp({40006}, payload), [&](const bytes& packet, bool first) {
    const std::uint32_t hash = first ? label4(gue_ip, 40006, 53) : label4(gue_ip, 0, 0);
    bytes header;
    put16(header, 0xc000 | (hash & 0x3fff));
    put16(header, 6080);
    put16(header, static_cast<unsigned>(8 + packet.size()));
    put16(header, 0);
    return framed(gue_udp4, 0x0800, in4(header + hop4(packet), 17));
  });
  // No checksum of UDP here that the new address would change.
  const ip4_fields dscp_ip{.destination = {198, 51, 100, 15}, .protocol = 17, .fragment = 0};
  bytes unsummed = udp({40007}, payload);
  unsummed[6] = unsummed[7] = 0;
  add4("UDP dsr-dscp", dscp_ip, unsummed, [](const bytes& packet, bool) {
    bytes p = packet;
    p[1] = 63 << 2;
    std::copy(backend4.begin(), backend4.end(), p.begin() + 16);
    return framed(dscp_udp4, 0x0800, hop4(p));
  });

  const auto add6 = [&](std::string what, const ip6_fields& f, unsigned protocol, const bytes& l4,
                        auto&& sent_as) {
    sequence s{std::move(what), {}, {}};
    for (const bytes& packet : cut6(f, protocol, l4, 32)) {
      s.in.push_back(ethernet(0x86dd, packet));
      s.out.push_back(sent_as(packet, s.out.empty()));
    }
    all.push_back(std::move(s));
  };
  ip6_fields to_dsr;
  to_dsr.destination[15] = 0x11;
  add6("IPv6 UDP dsr-l2", to_dsr, 17, udp({40008, 53}, payload),
       [](const bytes& packet, bool) { return framed(dsr6, 0x86dd, packet); });
  add6("IPv6 TCP 6in4", {}, 6, tcp({40009, 80, 0x18}, payload),
       [](const bytes& packet, bool) { return framed(web_6in4, 0x0800, in4(hop6(packet), 41)); });
  add6("IPv6 TCP 6in6", {}, 6, tcp({40010, 443, 0x18}, payload),
       [](const bytes& packet, bool first) {
         return framed(web_6in6, 0x86dd,
                       in6(hop6(packet), 41, first ? label6({}, 40010, 443) : label6_bare({}, 6)));
       });
  // Destination options behind the fragment header: the later ones say 60, not TCP.
  add6("IPv6 TCP, destination options in the fragmented part", {}, 60,
       extension(6) + tcp({40011, 80, 0x18}, payload),
       [](const bytes& packet, bool) { return framed(web_6in4, 0x0800, in4(hop6(packet), 41)); });
  return all;
}

class fragments : public ::testing::Test {
 protected:
  fragments() { fill_config(tables); }

  // sent_by() puts bursts through and returns every frame that left, in order.
  static std::vector<bytes> sent_by(bench& b, const std::vector<std::vector<bytes>>& bursts) {
    std::vector<bytes> out;
    for (const auto& burst : bursts) {
      std::vector<input> in;
      for (const bytes& frame : burst) in.push_back({frame});
      for (const result& r : b.run(in)) {
        if (r.outcome == verdict::forward) out.push_back(r.frame);
      }
      for (const result& r : b.released()) {
        EXPECT_EQ(r.outcome, verdict::forward);
        out.push_back(r.frame);
      }
    }
    return out;
  }
  table_builder tables;
};

TEST_F(fragments, in_every_order_and_every_grouping) {
  unsigned orders = 0;
  for (const sequence& s : sequences()) {
    ASSERT_GE(s.in.size(), 3u) << s.what;
    std::vector<std::size_t> order(s.in.size());
    std::iota(order.begin(), order.end(), 0u);
    std::vector<bytes> wanted = s.out;
    std::sort(wanted.begin(), wanted.end());
    do {
      for (const std::size_t size : {std::size_t{1}, std::size_t{2}, s.in.size()}) {
        bench b{tables.view()};
        std::vector<std::vector<bytes>> bursts;
        for (std::size_t i = 0; i < order.size(); ++i) {
          if (i % size == 0) bursts.emplace_back();
          bursts.back().push_back(s.in[order[i]]);
        }
        std::vector<bytes> got = sent_by(b, bursts);
        std::sort(got.begin(), got.end());
        ASSERT_EQ(got, wanted) << s.what << ", first in place "
                               << std::find(order.begin(), order.end(), 0u) - order.begin();
        ASSERT_EQ(b.waiting(), 0u);
        ASSERT_EQ(b.count(fragments_followed), s.in.size() - 1);
        ASSERT_EQ(b.decided(), s.in.size());
        ++orders;
      }
    } while (std::next_permutation(order.begin(), order.end()));
  }
  EXPECT_GE(orders, 12u * 6 * 3);
}

TEST_F(fragments, frames_are_right_to_the_bit_in_order) {
  for (const sequence& s : sequences()) {
    bench b{tables.view()};
    for (std::size_t i = 0; i < s.in.size(); ++i) {
      const result r = b.run(s.in[i]);
      ASSERT_EQ(r.outcome, verdict::forward) << s.what << " " << i;
      EXPECT_EQ(hex(r.frame), hex(s.out[i])) << s.what << " " << i;
    }
  }
}

// Each datagram at the backend of its flow, many of them interleaved at random.
TEST_F(fragments, each_datagram_at_its_own_backend) {
  table_builder many;
  std::vector<table_builder::backend_spec> backends;
  for (std::uint8_t i = 0; i < 7; ++i)
    backends.push_back(
        {ip_address::v4({10, 0, 0, i}),
         {2, 0, 0, 0, 0xb, i},
         0,
         1500,
         abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop});
  many.add_service(ip_address::v4({198, 51, 100, 10}), ip_proto::udp, 53, 53,
                   abi::forward_mode::dsr_l2, backends);
  bench b{many.view()};
  bench whole{many.view()};
  std::vector<std::pair<unsigned, bytes>> frames;
  std::map<unsigned, abi::backend_ref> wanted;
  for (unsigned port = 1000; port < 1040; ++port) {
    const ip4_fields f{.protocol = 17, .id = port, .fragment = 0};
    const bytes l4 = udp({port}, bytes(90, 1));
    wanted[port] = whole.run(ethernet(0x0800, ip4(f, l4))).backend;
    for (const bytes& packet : cut4(f, l4, 24)) frames.emplace_back(port, ethernet(0x0800, packet));
  }
  std::uint64_t random = 42;
  for (std::size_t i = frames.size() - 1; i > 0; --i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    std::swap(frames[i], frames[(random >> 33) % (i + 1)]);
  }
  std::set<std::uint32_t> used;
  unsigned arrived = 0;
  const auto look = [&](const result& r) {
    if (r.outcome != verdict::forward) return;
    ++arrived;
    const unsigned id = static_cast<unsigned>(r.frame[18]) << 8 | r.frame[19];
    EXPECT_EQ(r.backend, wanted[id]);
    used.insert(r.backend.index());
  };
  for (std::size_t at = 0; at < frames.size(); at += 8) {
    std::vector<input> in;
    for (std::size_t i = at; i < std::min(at + 8, frames.size()); ++i)
      in.push_back({frames[i].second});
    for (const result& r : b.run(in)) look(r);
    for (const result& r : b.released()) look(r);
  }
  EXPECT_EQ(arrived, frames.size());
  EXPECT_GE(used.size(), 6u);
  EXPECT_GT(b.count(fragments_waited), 20u);
}

TEST_F(fragments, one_whose_first_never_comes_is_dropped_after_a_second) {
  bench b{tables.view()};
  const bytes later = ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x0010}, bytes(40, 1)));
  EXPECT_EQ(b.run(later).outcome, verdict::held);
  b.now_ns += 999 * millisecond;
  b.maintain();
  EXPECT_TRUE(b.released().empty());
  EXPECT_EQ(b.waiting(), 1u);
  b.now_ns += 1 * millisecond;
  b.maintain();
  ASSERT_EQ(b.released().size(), 1u);
  EXPECT_EQ(b.released()[0].outcome, verdict::drop);
  EXPECT_EQ(b.released()[0].reason, drop_fragment);
  EXPECT_EQ(hex(b.released()[0].frame), hex(later));
  EXPECT_EQ(b.waiting(), 0u);
  EXPECT_EQ(b.count(drop_fragment), 1u);
  EXPECT_EQ(b.count(fragments_waited), 1u);
}

TEST_F(fragments, the_room_is_bounded_and_becomes_free_again) {
  bench b{tables.view()};
  const auto later = [](unsigned id) {
    return ethernet(0x0800, ip4({.protocol = 17, .id = id, .fragment = 0x0010}, bytes(40, 1)));
  };
  for (int round = 0; round < 3; ++round) {
    for (unsigned id = 0; id < 300; ++id) {
      const result r = b.run(later(id));
      if (id < waiting_places) {
        EXPECT_EQ(r.outcome, verdict::held);
      } else {
        EXPECT_EQ(r.reason, drop_fragment_room);
      }
    }
    // One datagram's first fragment makes room for one.
    EXPECT_EQ(b.run(ethernet(0x0800, ip4({.protocol = 17, .id = 7, .fragment = 0x2000},
                                         udp({.length = 200}, bytes(120, 1)))))
                  .outcome,
              verdict::forward);
    ASSERT_EQ(b.released().size(), 1u);
    EXPECT_EQ(b.released()[0].outcome, verdict::forward);
    EXPECT_EQ(b.run(later(1000)).outcome, verdict::held);
    EXPECT_EQ(b.run(later(1001)).reason, drop_fragment_room);
    b.now_ns += 5000 * millisecond;
    b.maintain();
    EXPECT_EQ(b.released().size(), waiting_places);
  }
  EXPECT_EQ(b.count(drop_fragment_room), 3u * (300 - waiting_places + 1));
}

TEST_F(fragments, one_datagram_cannot_fill_the_room) {
  bench b{tables.view()};
  unsigned held = 0;
  for (unsigned offset = 1; offset < 200; ++offset)
    held += b.run(ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x2000 | offset}, bytes(8, 1))))
                .outcome == verdict::held;
  EXPECT_EQ(held, waiting_room::most_of_one);
}

TEST_F(fragments, are_told_apart_by_source_destination_id_and_protocol) {
  bench b{tables.view()};
  const auto first = [](const ip4_fields& f) {
    return ethernet(0x0800, ip4(f, udp({.length = 200}, bytes(120, 1))));
  };
  ip4_fields f{.protocol = 17, .id = 5, .fragment = 0x2000};
  ASSERT_EQ(b.run(first(f)).outcome, verdict::forward);
  f.fragment = 0x0010;
  EXPECT_EQ(b.run(ethernet(0x0800, ip4(f, bytes(8, 1)))).outcome, verdict::forward);
  for (int change = 0; change < 3; ++change) {
    ip4_fields g = f;
    if (change == 0) g.id = 6;
    if (change == 1) g.source[3] = 8;
    if (change == 2) g.protocol = 6;
    EXPECT_EQ(b.run(ethernet(0x0800, ip4(g, bytes(8, 1)))).outcome, verdict::held) << change;
  }
}

TEST_F(fragments, are_forgotten_after_a_while) {
  bench b{tables.view()};
  const bytes later = ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x0010}, bytes(40, 1)));
  b.run(ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x2000}, udp({.length = 99}))));
  b.now_ns += 2900 * millisecond;
  EXPECT_EQ(b.run(later).outcome, verdict::forward);
  b.now_ns += 200 * millisecond;
  EXPECT_EQ(b.run(later).outcome, verdict::held);
}

TEST_F(fragments, follow_the_first_to_the_kernel_or_nowhere) {
  bench b{tables.view()};
  const auto run = [&](unsigned id, unsigned fragment, unsigned port, std::uint8_t in_port) {
    const bytes l4 = fragment == 0x2000 ? udp({40000, port, 99}, bytes(16, 1)) : bytes(16, 1);
    return b.run(ethernet(0x0800, ip4({.protocol = 17, .id = id, .fragment = fragment}, l4)),
                 in_port);
  };
  EXPECT_EQ(run(1, 0x0010, 0, kernel_port).outcome, verdict::held);
  EXPECT_EQ(run(1, 0x2000, 99, kernel_port).outcome, verdict::kernel);
  ASSERT_EQ(b.released().size(), 1u);
  EXPECT_EQ(b.released()[0].outcome, verdict::kernel);
  EXPECT_EQ(run(1, 0x0020, 0, kernel_port).outcome, verdict::kernel);
  EXPECT_EQ(run(2, 0x2000, 99, wire_port).reason, drop_no_service_port);
  EXPECT_EQ(run(2, 0x0010, 0, wire_port).reason, drop_fragment);
}

// A held packet's backend may be gone by the time.
TEST_F(fragments, do_not_follow_to_a_backend_that_is_removed) {
  bench b{tables.view()};
  b.run(ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x2000}, udp({.length = 99}))));
  tables.backend(dns4).flags = 0;
  tables.backend(dns4).incarnation = 4;
  b.path().set_view(tables.view());
  EXPECT_EQ(b.run(ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x0010}, bytes(8, 1)))).reason,
            drop_fragment);
}

// Held and released within one call that is decided on in several bursts.
TEST_F(fragments, across_the_bursts_of_one_call) {
  bench b{tables.view()};
  std::vector<input> in(600, {ethernet(0x0800, ip4({}, tcp({})))});
  in[3] = {ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x0010}, bytes(8, 1)))};
  in[500] = {ethernet(0x0800, ip4({.protocol = 17, .fragment = 0x2000}, udp({.length = 99})))};
  const std::vector<result> out = b.run(in);
  EXPECT_EQ(out[3].outcome, verdict::held);
  ASSERT_EQ(b.released().size(), 1u);
  EXPECT_EQ(b.released()[0].outcome, verdict::forward);
  EXPECT_EQ(b.decided(), 600u);
}

// Where flows have owners among the workers: a datagram's fragments, come to whichever
// workers, meet at one, go on to their flow's, and all reach a backend.
TEST_F(fragments, meet_at_one_worker) {
  const flow_owner owner{flow_owner::key_of(42), 3};
  std::array<std::unique_ptr<bench>, 3> workers;
  for (unsigned w = 0; w < workers.size(); ++w) {
    workers[w] = std::make_unique<bench>(tables.view());
    workers[w]->path().set_owner(&owner, w);
  }
  std::uint64_t random = 1;
  unsigned moved = 0;
  unsigned arrived = 0;
  std::set<unsigned> owners;
  for (std::uint8_t host = 1; host < 60; ++host) {
    const ip4_fields f{.source = {203, 0, 113, host}, .protocol = 17, .id = host, .fragment = 0};
    std::vector<bytes> pieces = cut4(f, udp({40000}, bytes(120, 1)), 32);
    std::reverse(pieces.begin(), pieces.end());
    std::set<unsigned> here;
    const std::function<void(unsigned, const result&, unsigned)> settle =
        [&](unsigned at, const result& r, unsigned times) {
          if (r.outcome == verdict::forward) {
            here.insert(at);
            ++arrived;
          }
          if (r.outcome != verdict::hand_over) return;
          ++moved;
          ASSERT_LT(times, 2u) << "to where they meet, and to the flow's";
          const result there = workers[r.out_port]->run_handed(r.frame);
          const std::vector<result> released = workers[r.out_port]->released();
          settle(r.out_port, there, times + 1);
          for (const result& late : released) settle(r.out_port, late, times + 1);
        };
    for (const bytes& piece : pieces) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const auto at = static_cast<unsigned>((random >> 33) % workers.size());
      const result r = workers[at]->run(ethernet(0x0800, piece));
      const std::vector<result> released = workers[at]->released();
      settle(at, r, 0);
      for (const result& late : released) settle(at, late, 0);
    }
    EXPECT_EQ(here.size(), 1u);
    owners.insert(*here.begin());
    EXPECT_EQ(arrived, 4u * host);
  }
  EXPECT_EQ(owners.size(), 3u);
  EXPECT_GT(moved, 100u);
}

}  // namespace
}  // namespace sluice::test
