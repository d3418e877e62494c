// SPDX-License-Identifier: Apache-2.0
// nat and full-nat, there and back through the packet path: addresses, ports, checksums, who
// gets the reply, and what happens when a session ends or there is no room for one.
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "tests/packet/nat_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr unsigned syn = 0x02, ack = 0x10, syn_ack = 0x12, fin_ack = 0x11, rst = 0x04;

TEST_F(nat_world, nat_there_and_back) {
  bench b{tables.view()};
  for (const unsigned service : {nat4, nat6, nat_same_port, nat_udp4}) {
    SCOPED_TRACE(service);
    const unsigned protocol = is_udp(service) ? 17 : 6;
    const end c = client(service);
    for (const std::size_t size : {0u, 1u, 100u}) {
      const bytes payload(size, 0x5a);
      const segment in{.from = c,
                       .to = vip(service),
                       .protocol = protocol,
                       .flags = size == 0 ? syn : ack,
                       .payload = payload};
      const segment there = to_server(b, in);
      EXPECT_EQ(there.from, c);
      EXPECT_EQ(there.to, server(service));
      EXPECT_EQ(there.ttl, 60u);
      EXPECT_EQ(hex(there.payload), hex(payload));
      EXPECT_EQ(there.sequence, protocol == 6 ? in.sequence : there.sequence);
      const segment back = to_client(b, {.from = server(service),
                                         .to = c,
                                         .protocol = protocol,
                                         .flags = syn_ack,
                                         .payload = payload});
      EXPECT_EQ(back.from, vip(service));
      EXPECT_EQ(back.to, c);
      EXPECT_EQ(back.ttl, 60u);
    }
  }
  EXPECT_EQ(b.count(nat_replies), 12u);
  EXPECT_EQ(b.count(forwarded), 12u);
  EXPECT_EQ(b.count(nat_sessions_opened), 4u);
  EXPECT_EQ(b.nat().size(), 4u);
  EXPECT_TRUE(b.nat().consistent());
}

TEST_F(nat_world, full_nat_there_and_back) {
  bench b{tables.view()};
  for (const unsigned service : {full4, full6, full_udp4}) {
    SCOPED_TRACE(service);
    const unsigned protocol = is_udp(service) ? 17 : 6;
    std::set<unsigned> ports;
    for (unsigned i = 0; i < 200; ++i) {
      const end c = client(service, 30000 + i);
      const segment there = to_server(b, {.from = c,
                                          .to = vip(service),
                                          .protocol = protocol,
                                          .flags = syn,
                                          .payload = bytes(i % 3, 1)});
      EXPECT_EQ(there.from.address, (is_v4(service) ? pool4 : pool6).address);
      EXPECT_GE(there.from.port, nat_table::first_port);
      EXPECT_TRUE(ports.insert(there.from.port).second) << "a port twice";
      EXPECT_EQ(there.to, server(service));
      const segment again = to_server(b, {.from = c, .to = vip(service), .protocol = protocol});
      EXPECT_EQ(again.from, there.from);
      const segment back = to_client(
          b, {.from = server(service), .to = there.from, .protocol = protocol, .flags = syn_ack});
      EXPECT_EQ(back.from, vip(service));
      EXPECT_EQ(back.to, c);
    }
  }
  EXPECT_TRUE(b.nat().consistent());
}

TEST_F(nat_world, every_checksum) {
  // Random addresses, ports, payloads of odd and even size: read() verifies what comes out.
  bench b = with({.sessions = 8192});
  std::mt19937 random{7};
  const auto byte = [&random] { return static_cast<std::uint8_t>(1 + random() % 200); };
  for (unsigned i = 0; i < 3000; ++i) {
    const unsigned service = std::array{nat4, nat_udp4, nat6, full4, full_udp4, full6}[i % 6];
    end c = client(service, static_cast<unsigned>(1 + random() % 65535));
    for (std::size_t k = is_v4(service) ? 13 : 8; k < 16; ++k) c.address.bytes[k] = byte();
    bytes payload(random() % 40);
    for (auto& x : payload) x = byte();
    const unsigned protocol = is_udp(service) ? 17 : 6;
    const segment there = to_server(b, {.from = c,
                                        .to = vip(service),
                                        .protocol = protocol,
                                        .flags = syn,
                                        .sequence = static_cast<std::uint32_t>(random()),
                                        .payload = payload});
    const segment back = to_client(b, {.from = there.to,
                                       .to = there.from,
                                       .protocol = protocol,
                                       .flags = syn_ack,
                                       .payload = payload});
    ASSERT_EQ(back.to, c);
    ASSERT_EQ(hex(back.payload), hex(payload));
  }
  EXPECT_TRUE(b.nat().consistent());
}

TEST_F(nat_world, udp_without_a_checksum_stays_so) {
  bench b{tables.view()};
  const result r = b.run(frame_of({.from = client(nat_udp4),
                                   .to = vip(nat_udp4),
                                   .protocol = 17,
                                   .payload = bytes(3, 1),
                                   .no_sum = true}));
  ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward));
  EXPECT_EQ(r.frame[40], 0);
  EXPECT_EQ(r.frame[41], 0);
}

TEST_F(nat_world, vlan_tags_and_padding) {
  bench b{tables.view()};
  const segment s{.from = client(nat4), .to = vip(nat4), .flags = syn};
  const bytes in = padded(ethernet(0x0800, ip_of(s), {{0x8100, 7}}, our_mac, router_mac), 64);
  const result r = b.run(in);
  ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward));
  EXPECT_EQ(r.frame.size(), in.size());
  segment out = s;
  out.to = server(nat4);
  out.ttl = 60;
  EXPECT_EQ(
      hex(r.frame),
      hex(padded(ethernet(0x0800, ip_of(out), {{0x8100, 7}}, server_mac, bench_ports[0].mac), 64)));
}

// The reply goes to where the client's packets come from, also when that changes.
TEST_F(nat_world, next_hop_of_the_client) {
  bench b{tables.view()};
  const segment in{.from = client(full4), .to = vip(full4), .flags = syn};
  const segment there = to_server(b, in);
  const segment reply{.from = server(full4), .to = there.from, .flags = syn_ack};
  to_client(b, reply);
  const mac other{2, 0, 0, 0, 0xc, 9};
  b.run(frame_of({.from = client(full4), .to = vip(full4)}, our_mac, other), kernel_port);
  const segment back = sent(b, frame_of(reply, our_mac, server_mac), other, kernel_port);
  EXPECT_EQ(back.to, client(full4));
}

TEST_F(nat_world, what_is_no_reply) {
  bench b{tables.view()};
  const segment there = to_server(b, {.from = client(full4), .to = vip(full4), .flags = syn});
  end wrong = there.from;
  wrong.port = wrong.port == 5000 ? 5001 : 5000;
  refused(b, frame_of({.from = server(full4), .to = wrong}), drop_nat_unmatched);
  end other_server = server(full4);
  other_server.port = 8081;
  refused(b, frame_of({.from = other_server, .to = there.from}), drop_nat_unmatched);
  refused(b, frame_of({.from = server(full4), .to = there.from, .protocol = 17}),
          drop_nat_unmatched);
  refused(b, frame_of({.from = server(full6), .to = at6(0x99, 1, 5000)}), drop_nat_unmatched);
  // To a client that we have no session with: none of our business.
  refused(b, frame_of({.from = server(nat4), .to = client(nat4)}), drop_not_for_us);
  const result r = b.run(frame_of({.from = server(nat4), .to = client(nat4)}), kernel_port);
  EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::kernel));
}

TEST_F(nat_world, only_a_packet_that_begins_something_makes_a_session) {
  bench b{tables.view()};
  refused(b, frame_of({.from = client(full4), .to = vip(full4), .flags = rst}), drop_nat_unmatched);
  refused(b, frame_of({.from = client(full4), .to = vip(full4), .flags = fin_ack}),
          drop_nat_unmatched);
  to_server(b, {.from = client(full4), .to = vip(full4), .flags = ack});
  EXPECT_EQ(b.nat().size(), 1u);
}

TEST_F(nat_world, sessions_end) {
  bench b{tables.view()};
  const segment open{.from = client(full4), .to = vip(full4), .flags = syn};
  const segment there = to_server(b, open);
  to_server(b, {.from = client(full4), .to = vip(full4), .flags = ack});
  const auto after = [&](unsigned seconds) {
    for (unsigned s = 0; s < seconds; ++s)
      for (int step = 0; step < 10; ++step) {
        b.now_ns += 100'000'000;
        b.path().maintain(b.now_ns);
      }
  };
  after(700);  // established: 900 s
  to_client(b, {.from = server(full4), .to = there.from});
  after(800);  // the reply counted, too
  EXPECT_EQ(b.nat().size(), 1u);
  to_client(b, {.from = server(full4), .to = there.from, .flags = rst | ack});
  after(25);
  EXPECT_EQ(b.nat().size(), 0u);
  EXPECT_EQ(b.count(nat_sessions_closed), 1u);
  refused(b, frame_of({.from = server(full4), .to = there.from}), drop_nat_unmatched);
  // Half-open ones go sooner.
  to_server(b, open);
  after(45);
  EXPECT_EQ(b.nat().size(), 0u);
  EXPECT_TRUE(b.nat().consistent());
}

TEST_F(nat_world, the_same_client_port_again) {
  bench b{tables.view()};
  const segment first = to_server(b, {.from = client(full4), .to = vip(full4), .flags = syn});
  to_server(b, {.from = client(full4), .to = vip(full4), .flags = fin_ack});
  const segment second =
      to_server(b, {.from = client(full4), .to = vip(full4), .flags = syn, .sequence = 77});
  EXPECT_EQ(second.from, first.from) << "as the backend would see it without us";
  EXPECT_EQ(b.nat().size(), 1u);
}

// Two ports of a VIP lead to one place, and the client uses one port for both.
TEST_F(nat_world, ambiguous_replies_are_refused) {
  tables.add_service(vip(nat4).address, ip_proto::tcp, 2000, 2000, abi::forward_mode::nat,
                     {{server(nat4).address, server_mac, 0, 1500, 7, 0, 8080}});
  bench b{tables.view()};
  end other = vip(nat4);
  other.port = 2000;
  to_server(b, {.from = client(nat4), .to = vip(nat4), .flags = syn});
  to_server(b, {.from = client(nat4), .to = vip(nat4)});
  refused(b, frame_of({.from = client(nat4), .to = other, .flags = syn}), drop_nat_no_port);
  to_server(b, {.from = client(nat4), .to = vip(nat4), .flags = rst});  // that one is over
  to_server(b, {.from = client(nat4), .to = other, .flags = syn});
  const segment back = to_client(b, {.from = server(nat4), .to = client(nat4), .flags = syn_ack});
  EXPECT_EQ(back.from, other);
  EXPECT_TRUE(b.nat().consistent());
}

TEST_F(nat_world, what_backends_reset_is_counted) {
  bench b{tables.view()};
  unsigned port = 40000;
  for (const unsigned s : {nat4, nat6, full4, full6}) {
    SCOPED_TRACE(s);
    const std::uint32_t row = tables.member(tables.service(s).member_first).index();
    const auto talk = [&](std::initializer_list<unsigned> from_client) {
      segment there;
      ++port;
      for (const unsigned flags : from_client)
        there = to_server(b, {.from = client(s, port), .to = vip(s), .flags = flags});
      return there.from;
    };
    const auto reset = [&](const end& to) {
      to_client(b, {.from = server(s), .to = to, .flags = rst | ack});
    };
    const end refused_one = talk({syn});
    reset(refused_one);
    EXPECT_EQ(b.resets(row), 1u);
    reset(refused_one);  // of the same connection
    EXPECT_EQ(b.resets(row), 1u);
    // What was on its way to the backend is answered in the same way.
    const end busy = talk({syn, ack});
    reset(busy);
    EXPECT_EQ(b.resets(row), 2u);
    to_server(b, {.from = client(s, port), .to = vip(s)});
    reset(busy);
    EXPECT_EQ(b.resets(row), 2u);
    reset(talk({syn, ack}));
    EXPECT_EQ(b.resets(row), 3u);
    reset(talk({syn, ack, fin_ack}));  // the client had done
    reset(talk({syn, ack, rst}));
    const end fine = talk({syn, ack});
    to_client(b, {.from = server(s), .to = fine, .flags = fin_ack});
    EXPECT_EQ(b.resets(row), 3u);
  }
}

TEST_F(nat_world, a_backend_that_goes_away) {
  bench b{tables.view()};
  const segment in{.from = client(nat_two), .to = vip(nat_two), .flags = syn};
  const segment there = to_server(b, in);
  const unsigned which = there.to == server(nat_two, 0) ? 0 : 1;
  to_server(b, {.from = client(nat_two), .to = vip(nat_two)});
  abi::service_row& s = tables.service(nat_two);
  abi::backend_row& gone = tables.backend(tables.member(s.member_first + which).index());
  gone.flags = abi::backend_in_use;
  for (std::uint32_t i = 0; i < s.table_size; ++i)
    tables.set_slot(s, i, static_cast<std::uint16_t>(1 - which));
  ++tables.header().number;
  b.path().set_view(tables.view());
  const segment moved = to_server(b, {.from = client(nat_two), .to = vip(nat_two)});
  EXPECT_EQ(moved.to, server(nat_two, 1 - which));
  EXPECT_EQ(b.nat().size(), 1u);
  to_client(b, {.from = server(nat_two, 1 - which), .to = client(nat_two), .flags = rst});
}

TEST_F(nat_world, no_table_no_translation) {
  bench b{tables.view()};
  b.path().use_nat(nullptr);
  refused(b, frame_of({.from = client(nat4), .to = vip(nat4), .flags = syn}), drop_nat_no_room);
  refused(b, frame_of({.from = server(nat4), .to = client(nat4)}), drop_not_for_us);
}

// Where the tables say that no service translates, nothing is looked up.
TEST_F(nat_world, a_generation_without_nat) {
  bench b{tables.view()};
  const segment there = to_server(b, {.from = client(full4), .to = vip(full4), .flags = syn});
  const bytes reply = frame_of({.from = server(full4), .to = there.from, .flags = syn_ack});
  tables.header().flags &= ~std::uint64_t{abi::generation_has_nat};
  ++tables.header().number;
  b.path().set_view(tables.view());
  refused(b, reply, drop_not_for_us);
  refused(b, frame_of({.from = client(full4), .to = vip(full4)}), drop_nat_no_room);
  tables.header().flags |= abi::generation_has_nat;
  ++tables.header().number;
  b.path().set_view(tables.view());
  to_client(b, {.from = server(full4), .to = there.from, .flags = syn_ack});
}

// Memory of sessions that never were is not there.
TEST(nat_memory, is_reserved_only) {
  const auto resident = [] {
    std::ifstream statm{"/proc/self/statm"};
    std::size_t pages = 0;
    statm >> pages >> pages;
    return pages * 4096;
  };
  const std::size_t before = resident();
  nat_table table{{.sessions = 1u << 22}};
  ASSERT_TRUE(table.ready());
  const wire::flow_ends ends{at4({203, 0, 113, 7}, 0).address, at4({198, 51, 100, 20}, 0).address,
                             be16{40000}, be16{80}};
  EXPECT_EQ(table.find_forward(ends, 6), nullptr);
  table.sweep(
      1, 0, [](const nat_session&) { return false; }, [](const nat_session&) {});
  EXPECT_LT(resident() - before, std::size_t{1} << 20);
}

TEST_F(nat_world, other_family_and_too_big) {
  tables.backend(full4).address = server(full6).address;
  tables.backend(nat4).mtu = 100;
  bench b{tables.view()};
  refused(b, frame_of({.from = client(full4), .to = vip(full4), .flags = syn}), drop_bad_table);
  to_server(b, {.from = client(nat4), .to = vip(nat4), .flags = syn, .payload = bytes(60, 1)});
  const result r =
      b.run(frame_of({.from = client(nat4), .to = vip(nat4), .payload = bytes(61, 1)}));
  EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::reply)) << "told its sender";
  EXPECT_EQ(b.count(drop_too_big), 1u);
}

TEST_F(nat_world, no_address_in_the_pool) {
  tables.header().pool_count = 1;  // the IPv4 one
  bench b{tables.view()};
  refused(b, frame_of({.from = client(full6), .to = vip(full6), .flags = syn}), drop_nat_no_port);
  to_server(b, {.from = client(full4), .to = vip(full4), .flags = syn});
}

// A full table: what is established stays, half-open sessions give way.
TEST_F(nat_world, full_table) {
  bench b = with({.sessions = 16});
  for (unsigned i = 0; i < 8; ++i) {
    to_server(b, {.from = client(nat4, 1000 + i), .to = vip(nat4), .flags = syn});
    to_server(b, {.from = client(nat4, 1000 + i), .to = vip(nat4)});
  }
  for (unsigned i = 0; i < 500; ++i)
    to_server(b, {.from = client(nat4, 2000 + i), .to = vip(nat4), .flags = syn});
  EXPECT_EQ(b.nat().size(), 16u);
  for (unsigned i = 0; i < 8; ++i)
    to_client(b, {.from = server(nat4), .to = client(nat4, 1000 + i)});
  // Make all of them established: the next one is refused.
  for (unsigned i = 0; i < 8; ++i)
    for (int packets = 0; packets < 2; ++packets)
      to_server(b, {.from = client(nat4, 3000 + i), .to = vip(nat4)});
  refused(b, frame_of({.from = client(nat4, 9999), .to = vip(nat4), .flags = syn}),
          drop_nat_no_room);
  EXPECT_TRUE(b.nat().consistent());
}

// The ports of all workers together: each of 1024..65535 belongs to exactly one.
TEST_F(nat_world, ports_by_worker) {
  std::map<unsigned, unsigned> owner;
  constexpr unsigned workers = 64;
  for (const unsigned worker : {0u, 1u, 63u}) {
    bench b = with({.sessions = 2048, .worker = worker, .workers = workers});
    std::set<unsigned> seen;
    unsigned i = 0;
    for (; i < 1008; ++i) {
      const end c = client(full4, 10000 + i);
      const segment there = to_server(b, {.from = c, .to = vip(full4), .flags = syn});
      to_server(b, {.from = c, .to = vip(full4)});
      EXPECT_EQ(there.from.port % workers, worker);
      EXPECT_EQ(
          nat_table::owner_of_port(be16{static_cast<std::uint16_t>(there.from.port)}, workers),
          worker);
      seen.insert(there.from.port);
      EXPECT_TRUE(owner.emplace(there.from.port, worker).second);
    }
    EXPECT_EQ(seen.size(), 1008u);
    // All of them are taken and established; another backend still finds ports.
    refused(b, frame_of({.from = client(full4, 9), .to = vip(full4), .flags = syn}),
            drop_nat_no_port);
    to_server(b, {.from = client(full_udp4), .to = vip(full_udp4), .protocol = 17});
    // One becomes free: it is found, sooner or later.
    to_server(b, {.from = client(full4, 10000), .to = vip(full4), .flags = rst});
    bool found = false;
    for (unsigned k = 0; k < 100 && !found; ++k)
      found = b.run(frame_of({.from = client(full4, 9), .to = vip(full4), .flags = syn})).outcome ==
              verdict::forward;
    EXPECT_TRUE(found);
    EXPECT_TRUE(b.nat().consistent());
  }
}

// Whoever does not own a reply learns who does from the port, or from the others' tables.
TEST_F(nat_world, the_owner_of_a_reply) {
  bench b{tables.view()};
  const segment there = to_server(b, {.from = client(nat4), .to = vip(nat4), .flags = syn});
  const wire::flow_ends reply{there.to.address, there.from.address,
                              be16{static_cast<std::uint16_t>(there.to.port)},
                              be16{static_cast<std::uint16_t>(there.from.port)}};
  EXPECT_TRUE(b.nat().holds_reply(reply, 6));
  EXPECT_FALSE(b.nat().holds_reply(reply, 17));
  wire::flow_ends other = reply;
  other.source_port = be16{1};
  EXPECT_FALSE(b.nat().holds_reply(other, 6));
}

// Two workers: each hands the other's replies over, and takes what is handed to it.
TEST_F(nat_world, replies_on_the_wrong_worker) {
  bench a = with({.worker = 0, .workers = 2});
  bench b = with({.worker = 1, .workers = 2});
  const std::array<const nat_table*, 2> all{&a.nat(), &b.nat()};
  a.path().set_owner(nullptr, 0);
  b.path().set_owner(nullptr, 1);
  a.path().use_nat(&a.nat(), all);
  b.path().use_nat(&b.nat(), all);
  for (const unsigned service : {nat4, nat6, full4, full_udp4}) {
    SCOPED_TRACE(service);
    const unsigned protocol = is_udp(service) ? 17 : 6;
    const segment there = to_server(
        b, {.from = client(service), .to = vip(service), .protocol = protocol, .flags = syn});
    const bytes reply =
        frame_of({.from = there.to, .to = there.from, .protocol = protocol, .flags = syn_ack},
                 our_mac, server_mac);
    const result r = a.run(reply);
    EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::hand_over));
    EXPECT_EQ(unsigned{r.out_port}, 1u);
    EXPECT_EQ(hex(r.frame), hex(reply)) << "untouched";
    to_client(b, {.from = there.to, .to = there.from, .protocol = protocol, .flags = syn_ack});
  }
  // Nobody's: the owner of the port drops it, and nobody sends what no table knows around.
  end nobody = pool4;
  nobody.port = 3001;
  EXPECT_EQ(static_cast<int>(a.run(frame_of({.from = server(full4), .to = nobody})).outcome),
            static_cast<int>(verdict::hand_over));
  refused(b, frame_of({.from = server(full4), .to = nobody}), drop_nat_unmatched);
  refused(a, frame_of({.from = server(nat4), .to = client(nat4, 7)}), drop_not_for_us);
}

// Any one byte of either direction's packets changed: nothing is read or written out of
// bounds, the table stays whole, and each packet is counted once.
TEST_F(nat_world, any_byte_changed) {
  bench b = with({.sessions = 64});
  std::uint64_t packets = 0;
  for (unsigned service = 0; service < nat_service_count; ++service) {
    const unsigned protocol = is_udp(service) ? 17 : 6;
    const segment open{.from = client(service),
                       .to = vip(service),
                       .protocol = protocol,
                       .flags = syn,
                       .options = protocol == 6 ? bytes{2, 4, 5, 0xb4} : bytes{}};
    const segment there = to_server(b, open);
    ++packets;
    const bytes reply = frame_of(
        {.from = there.to,
         .to = there.from,
         .protocol = protocol,
         .flags = syn_ack,
         .options =
             protocol == 6 ? bytes{2, 4, 5, 0xb4, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1} : bytes{}});
    for (const bytes& frame : {frame_of(open), reply})
      for (std::size_t at = 0; at < frame.size(); ++at)
        for (const unsigned value : {0u, 1u, 5u, 0x7fu, 0xffu}) {
          bytes changed = frame;
          changed[at] = static_cast<std::uint8_t>(value);
          b.run(changed);
          ++packets;
          changed.resize(at);
          b.run(changed);
          ++packets;
        }
  }
  EXPECT_TRUE(b.nat().consistent());
  EXPECT_EQ(b.decided(), packets);
}

}  // namespace
}  // namespace sluice::test
