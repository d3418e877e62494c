// SPDX-License-Identifier: Apache-2.0
// Fragments of translated datagrams, both ways and in every order: every byte of every one.
#include <algorithm>
#include <numeric>
#include <set>

#include "tests/packet/fragment_builder.hpp"
#include "tests/packet/nat_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr unsigned syn = 0x02, ack = 0x10, syn_ack = 0x12;
constexpr std::size_t piece = 24;

// frames_of() is a packet in fragments.
std::vector<bytes> frames_of(const segment& s, const mac& to, const mac& from, unsigned id = 77) {
  const bytes ip = ip_of(s);
  std::vector<bytes> out;
  if (s.from.address.is_v4()) {
    const auto quad_of = [](const ip_address& a) {
      return quad{a.bytes[12], a.bytes[13], a.bytes[14], a.bytes[15]};
    };
    for (const bytes& f : cut4({.source = quad_of(s.from.address),
                          .destination = quad_of(s.to.address),
                          .protocol = s.protocol,
                          .ttl = s.ttl,
                          .id = id},
                               bytes(ip.begin() + 20, ip.end()), piece))
      out.push_back(ethernet(0x0800, f, {}, to, from));
    return out;
  }
  for (const bytes& f :
       cut6({.source = s.from.address.bytes, .destination = s.to.address.bytes, .hop_limit = s.ttl},
            s.protocol, bytes(ip.begin() + 40, ip.end()), piece))
    out.push_back(ethernet(0x86dd, f, {}, to, from));
  return out;
}

bytes counting(std::size_t n) {
  bytes b(n);
  std::iota(b.begin(), b.end(), std::uint8_t{3});
  return b;
}

class nat_fragments : public nat_world {
 protected:
  static constexpr std::array<unsigned, 6> plain{nat4, nat_udp4, nat6, full4, full_udp4, full6};

  static unsigned protocol(unsigned service) { return is_udp(service) ? 17 : 6; }
  static segment opening(unsigned service, unsigned port = 40000) {
    return {.from = client(service, port),
            .to = vip(service),
            .protocol = protocol(service),
            .flags = syn,
            .payload = bytes(is_udp(service) ? 5 : 0, 1)};
  }
  // all_leave() puts frames in, in this order, one by one or in a burst, and wants all of
  // `wanted` sent by a port, whenever.
  static void all_leave(bench& b, const std::vector<bytes>& in,
                        const std::vector<std::size_t>& order, bool burst,
                        const std::vector<bytes>& wanted, unsigned out_port) {
    std::vector<input> inputs;
    for (const std::size_t i : order) inputs.push_back({in[i], wire_port});
    std::vector<result> results;
    const auto take = [&results](const std::vector<result>& some) {
      for (const result& r : some)
        if (r.outcome != verdict::held) results.push_back(r);
    };
    const auto run = [&](const std::vector<input>& some) {
      take(b.run(some));
      take(b.released());
    };
    if (burst) {
      run(inputs);
    } else {
      for (const input& one : inputs) run({one});
    }
    std::multiset<std::string> sent;
    for (const result& r : results) {
      EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward))
          << "dropped for " << static_cast<int>(r.reason);
      EXPECT_EQ(unsigned{r.out_port}, out_port);
      sent.insert(hex(r.frame));
    }
    std::multiset<std::string> expected;
    for (const bytes& w : wanted) expected.insert(hex(w));
    EXPECT_EQ(sent, expected);
  }
};

TEST_F(nat_fragments, both_ways_in_every_order) {
  for (const bool burst : {false, true})
    for (const unsigned service : plain) {
      std::vector<std::size_t> order{0, 1, 2};
      do {
        SCOPED_TRACE(testing::Message() << service << " " << order[0] << order[1] << order[2]);
        bench b{tables.view()};
        const segment there = to_server(b, opening(service));
        segment data = opening(service);
        data.flags = ack;
        data.payload = counting(protocol(service) == 17 ? 61 : 45);
        segment wanted = data;
        wanted.from = there.from;
        wanted.to = there.to;
        --wanted.ttl;
        all_leave(b, frames_of(data, our_mac, router_mac), order, burst,
                  frames_of(wanted, server_mac, bench_ports[0].mac), 0);
        segment reply{.from = there.to,
                      .to = there.from,
                      .protocol = protocol(service),
                      .flags = syn_ack,
                      .payload = counting(protocol(service) == 17 ? 62 : 46)};
        wanted = reply;
        wanted.from = vip(service);
        wanted.to = client(service);
        --wanted.ttl;
        all_leave(b, frames_of(reply, our_mac, server_mac), order, burst,
                  frames_of(wanted, router_mac, bench_ports[wire_port].mac), wire_port);
        EXPECT_EQ(b.count(fragments_followed), 4u);
        EXPECT_EQ(b.count(nat_replies), 3u);
        EXPECT_EQ(b.waiting(), 0u);
        EXPECT_EQ(b.nat().size(), 1u);
      } while (std::next_permutation(order.begin(), order.end()));
    }
}

TEST_F(nat_fragments, udp_without_a_checksum) {
  bench b{tables.view()};
  segment data = opening(full_udp4);
  data.no_sum = true;
  data.payload = counting(61);
  const std::vector<bytes> in = frames_of(data, our_mac, router_mac);
  const result r = b.run(in[0]);
  ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward));
  EXPECT_EQ(r.frame[40], 0);
  EXPECT_EQ(r.frame[41], 0);
}

// A datagram may be the first that is seen of its flow; its later fragments then wait for a
// session, too.
TEST_F(nat_fragments, a_flow_begins_with_fragments) {
  bench b{tables.view()};
  segment data = opening(nat_udp4);
  data.payload = counting(61);
  segment wanted = data;
  wanted.to = server(nat_udp4);
  --wanted.ttl;
  all_leave(b, frames_of(data, our_mac, router_mac), {2, 1, 0}, false,
            frames_of(wanted, server_mac, bench_ports[0].mac), 0);
  EXPECT_EQ(b.nat().size(), 1u);
}

TEST_F(nat_fragments, what_is_put_into_streams) {
  bench b{tables.view()};
  for (const unsigned service : {toa4, proxy4}) {
    SCOPED_TRACE(service);
    segment open = opening(service);
    open.sequence = 5000;
    const segment there = to_server(b, open);
    to_client(b, {.from = server(service),
                  .to = there.from,
                  .flags = syn_ack,
                  .sequence = 9000,
                  .acknowledgement = 5001});
    segment data{.from = client(service),
                 .to = vip(service),
                 .flags = ack,
                 .sequence = 5001,
                 .acknowledgement = 9001,
                 .payload = counting(45)};
    const std::vector<bytes> in = frames_of(data, our_mac, router_mac);
    if (service == proxy4) {  // the header has no place in a fragment
      refused(b, in[0], drop_fragment);
      refused(b, in[1], drop_fragment);
      continue;
    }
    segment wanted = data;
    wanted.from = there.from;
    wanted.to = there.to;
    --wanted.ttl;
    all_leave(b, in, {0, 1, 2}, false, frames_of(wanted, server_mac, bench_ports[0].mac), 0);
  }
}

// What does not belong to a session is the kernel's, or dropped by name.
TEST_F(nat_fragments, of_nobody) {
  bench b{tables.view()};
  segment reply{
      .from = server(nat_udp4), .to = client(nat_udp4), .protocol = 17, .payload = counting(61)};
  std::vector<bytes> in = frames_of(reply, our_mac, server_mac);
  EXPECT_EQ(static_cast<int>(b.run(in[0], kernel_port).outcome), static_cast<int>(verdict::kernel));
  EXPECT_EQ(static_cast<int>(b.run(in[1], kernel_port).outcome), static_cast<int>(verdict::kernel));
  // Without the first one it waits, and then goes where it would have gone.
  in = frames_of(reply, our_mac, server_mac, 78);
  const std::uint64_t before = b.decided();
  EXPECT_EQ(static_cast<int>(b.run(in[1], kernel_port).outcome), static_cast<int>(verdict::held));
  EXPECT_EQ(static_cast<int>(b.run(in[2], wire_port).outcome), static_cast<int>(verdict::held));
  b.now_ns += 2'000'000'000;
  b.maintain();
  ASSERT_EQ(b.released().size(), 2u);
  EXPECT_EQ(static_cast<int>(b.released()[0].outcome), static_cast<int>(verdict::kernel));
  EXPECT_EQ(static_cast<int>(b.released()[1].outcome), static_cast<int>(verdict::drop));
  EXPECT_EQ(b.decided(), before + 2);
  // To the pool: nobody else's.
  reply.from = server(full_udp4);
  reply.to = pool4;
  reply.to.port = 3000;
  in = frames_of(reply, our_mac, server_mac, 79);
  refused(b, in[0], drop_nat_unmatched);
  refused(b, in[1], drop_fragment);
  // From somebody who is no backend: at once.
  reply.from = at4({10, 0, 7, 7}, 53);
  reply.to = client(nat_udp4);
  in = frames_of(reply, our_mac, server_mac, 80);
  EXPECT_EQ(static_cast<int>(b.run(in[1], kernel_port).outcome), static_cast<int>(verdict::kernel));
}

// The session of the first fragment is over, and its place another's, when the second comes.
TEST_F(nat_fragments, a_session_ends_in_between) {
  bench b{tables.view()};
  segment data = opening(nat_udp4);
  data.payload = counting(61);
  const std::vector<bytes> in = frames_of(data, our_mac, router_mac);
  ASSERT_EQ(static_cast<int>(b.run(in[0]).outcome), static_cast<int>(verdict::forward));
  b.nat().clear();
  refused(b, in[1], drop_fragment);
  to_server(b, opening(full_udp4));
  refused(b, in[2], drop_fragment);
}

// Two workers whose NIC does not know of ports: fragments of a session of the other one's go
// there, in order.
TEST_F(nat_fragments, on_the_wrong_worker) {
  bench a = with({.worker = 0, .workers = 2});
  bench b = with({.worker = 1, .workers = 2});
  const std::array<const nat_table*, 2> all{&a.nat(), &b.nat()};
  a.path().set_owner(nullptr, 0);
  b.path().set_owner(nullptr, 1);
  a.path().use_nat(&a.nat(), all);
  b.path().use_nat(&b.nat(), all);
  for (const unsigned service : plain) {
    SCOPED_TRACE(service);
    const segment there = to_server(b, opening(service));
    segment data = opening(service);
    data.flags = ack;
    data.payload = counting(45);
    const segment reply{.from = there.to,
                        .to = there.from,
                        .protocol = protocol(service),
                        .flags = syn_ack,
                        .payload = counting(45)};
    for (const auto& in :
         {frames_of(data, our_mac, router_mac), frames_of(reply, our_mac, server_mac)})
      for (const bytes& frame : in) {
        const result r = a.run(frame);
        EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::hand_over));
        EXPECT_EQ(unsigned{r.out_port}, 1u);
        EXPECT_EQ(hex(r.frame), hex(frame)) << "untouched";
        EXPECT_EQ(static_cast<int>(b.run_handed(frame).outcome),
                  static_cast<int>(verdict::forward));
      }
  }
  EXPECT_EQ(a.nat().size(), 0u);
  EXPECT_EQ(a.table().v4.size() + a.table().v6.size(), 0u);
}

TEST_F(nat_fragments, any_byte_changed) {
  bench b{tables.view()};
  std::uint64_t packets = 0;
  for (const unsigned service : {nat_udp4, full4, full6, proxy4}) {
    const segment there = to_server(b, opening(service));
    ++packets;
    segment data = opening(service);
    data.payload = counting(45);
    const segment reply{.from = there.to,
                        .to = there.from,
                        .protocol = protocol(service),
                        .flags = syn_ack,
                        .payload = counting(45)};
    for (const auto& in :
         {frames_of(data, our_mac, router_mac), frames_of(reply, our_mac, server_mac)})
      for (const bytes& frame : in)
        for (std::size_t at = 0; at < frame.size(); ++at)
          for (const unsigned value : {0u, 0x20u, 0xffu}) {
            bytes changed = frame;
            changed[at] = static_cast<std::uint8_t>(value);
            b.run(changed);
            ++packets;
            b.now_ns += 300'000'000;
            b.maintain();
          }
  }
  b.now_ns += 3'000'000'000;
  b.maintain();
  EXPECT_EQ(b.waiting(), 0u);
  EXPECT_TRUE(b.nat().consistent());
  EXPECT_EQ(b.decided(), packets);
}

}  // namespace
}  // namespace sluice::test
