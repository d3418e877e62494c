// SPDX-License-Identifier: Apache-2.0
// The client's address on its way to a full-nat backend: TOA options, and a PROXY protocol
// header in the stream while packets are lost, doubled and reordered on both sides.
#include <algorithm>
#include <random>

#include "tests/packet/nat_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr unsigned syn = 0x02, ack = 0x10, syn_ack = 0x12, psh_ack = 0x18, fin_ack = 0x11,
                   rst = 0x04;
const bytes mss{2, 4, 0x05, 0xb4};  // 1460

bytes address_of(const end& e) {
  const std::size_t from = e.address.is_v4() ? 12 : 0;
  return {e.address.bytes.begin() + static_cast<std::ptrdiff_t>(from), e.address.bytes.end()};
}
bytes port_of(const end& e) {
  bytes b;
  put16(b, e.port);
  return b;
}
bytes toa_of(const end& c) {
  bytes b{254, static_cast<std::uint8_t>(c.address.is_v4() ? 8 : 20)};
  return b + port_of(c) + address_of(c);
}
bytes proxy_of(const end& c, const end& v) {
  const bool v4 = c.address.is_v4();
  const bytes start{'\r', '\n',
                    '\r', '\n',
                    0,    '\r',
                    '\n', 'Q',
                    'U',  'I',
                    'T',  '\n',
                    0x21, static_cast<std::uint8_t>(v4 ? 0x11 : 0x21),
                    0,    static_cast<std::uint8_t>(v4 ? 12 : 36)};
  return start + address_of(c) + address_of(v) + port_of(c) + port_of(v);
}
unsigned mss_of(const segment& s) {
  return static_cast<unsigned>(s.options.at(2)) << 8 | s.options.at(3);
}

TEST_F(nat_world, toa) {
  for (const unsigned service : {toa4, toa6}) {
    SCOPED_TRACE(service);
    bench b{tables.view()};
    const end c = client(service), v = vip(service);
    const bytes toa = toa_of(c);
    const segment there =
        to_server(b, {.from = c, .to = v, .flags = syn, .sequence = 100, .options = mss});
    EXPECT_EQ(hex(there.options), hex(mss)) << "none in a SYN";
    // The handshake's ACK before the SYN-ACK was seen: nobody can know what it acknowledges.
    const segment back = to_client(b, {.from = there.to,
                                       .to = there.from,
                                       .flags = syn_ack,
                                       .sequence = 900,
                                       .acknowledgement = 101,
                                       .options = mss + bytes{1, 3, 3, 7}});
    EXPECT_EQ(mss_of(back), 1460 - toa.size());
    EXPECT_EQ(back.acknowledgement, 101u);
    const bytes stamps{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2};
    for (const std::size_t size : {0u, 10u, 301u}) {
      const segment s = to_server(b, {.from = c,
                                      .to = v,
                                      .flags = psh_ack,
                                      .sequence = 101,
                                      .acknowledgement = 901,
                                      .options = stamps,
                                      .payload = bytes(size, 7)});
      EXPECT_EQ(hex(s.options), hex(toa + stamps));
      EXPECT_EQ(s.payload.size(), size);
      EXPECT_EQ(s.sequence, 101u);
    }
    // No room among the options, in the MTU, or in the buffer: it goes without.
    segment crowded{.from = c,
                    .to = v,
                    .flags = ack,
                    .sequence = 101,
                    .acknowledgement = 901,
                    .options = bytes(40, 1)};
    EXPECT_EQ(hex(to_server(b, crowded).options), hex(bytes(40, 1)));
    const std::size_t headers = is_v4(service) ? 40 : 60;
    segment big{.from = c,
                .to = v,
                .flags = ack,
                .sequence = 101,
                .acknowledgement = 901,
                .payload = bytes(1500 - headers - toa.size() + 1, 1)};
    EXPECT_TRUE(to_server(b, big).options.empty());
    big.payload.pop_back();
    EXPECT_EQ(hex(to_server(b, big).options), hex(toa));
    const result r = b.run({{frame_of(big), wire_port, 6}})[0];
    ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward));
    EXPECT_TRUE(read(r.frame).options.empty());
    // Padding behind the packet does not survive the growth.
    const result p = b.run(padded(
        frame_of({.from = c, .to = v, .flags = ack, .sequence = 101, .acknowledgement = 901}), 90));
    EXPECT_EQ(hex(read(p.frame).options), hex(toa));
    // The client has acknowledged data: the backend has had its chance.
    EXPECT_TRUE(
        to_server(b, {.from = c, .to = v, .flags = ack, .sequence = 101, .acknowledgement = 950})
            .options.empty());
    EXPECT_TRUE(
        to_server(b,
                  {.from = c, .to = v, .flags = rst | ack, .sequence = 101, .acknowledgement = 901})
            .options.empty());
  }
}

TEST_F(nat_world, proxy_header_on_the_handshake) {
  for (const unsigned service : {proxy4, proxy6}) {
    SCOPED_TRACE(service);
    bench b{tables.view()};
    const end c = client(service), v = vip(service);
    const bytes header = proxy_of(c, v);
    const auto n = static_cast<std::uint32_t>(header.size());
    const segment there =
        to_server(b, {.from = c, .to = v, .flags = syn, .sequence = 100, .options = mss});
    EXPECT_EQ(there.sequence, 100u);
    EXPECT_TRUE(there.payload.empty());
    const auto reply = [&](segment s) {
      s.from = there.to;
      s.to = there.from;
      return to_client(b, s);
    };
    const segment back =
        reply({.flags = syn_ack, .sequence = 900, .acknowledgement = 101, .options = mss});
    EXPECT_EQ(mss_of(back), 1460 - n);
    const auto say = [&](unsigned flags, std::uint32_t sequence, std::uint32_t acknowledged,
                         const bytes& payload = {}) {
      return to_server(b, {.from = c,
                           .to = v,
                           .flags = flags,
                           .sequence = sequence,
                           .acknowledgement = acknowledged,
                           .payload = payload});
    };
    EXPECT_EQ(hex(say(ack, 101, 901).payload), hex(header));
    const bytes hello{'h', 'e', 'l', 'l', 'o'};
    segment s = say(psh_ack, 101, 901, hello);  // the header may have been lost
    EXPECT_EQ(s.sequence, 101u);
    EXPECT_EQ(hex(s.payload), hex(header + hello));
    s = say(psh_ack, 106, 901, hello);  // overtakes the first
    EXPECT_EQ(s.sequence, 106u + n);
    EXPECT_EQ(hex(s.payload), hex(hello));
    s = say(ack, 100, 901);  // a keep-alive from before
    EXPECT_EQ(s.sequence, 100u);
    // The backend has a hole where the header should be.
    s = reply({.flags = ack,
               .sequence = 901,
               .acknowledgement = 101,
               .options = bytes{1, 1, 5, 10} + [&] {
                 bytes edges;
                 put32(edges, 106 + n);
                 put32(edges, 111 + n);
                 return edges;
               }()});
    EXPECT_EQ(s.acknowledgement, 101u);
    // Half of it, as nobody does; then all of it.
    EXPECT_EQ(
        reply({.flags = ack, .sequence = 901, .acknowledgement = 101 + n / 2}).acknowledgement,
        101u);
    EXPECT_EQ(hex(say(ack, 101, 901).payload), hex(header));
    EXPECT_EQ(reply({.flags = ack, .sequence = 901, .acknowledgement = 101 + n}).acknowledgement,
              101u);
    s = say(psh_ack, 101, 901, hello);
    EXPECT_EQ(s.sequence, 101 + n);
    EXPECT_EQ(hex(s.payload), hex(hello));
    bytes sack{1, 1, 5, 18}, moved{1, 1, 5, 18};
    for (const std::uint32_t edge : {110u, 120u, 130u, 0xfffffff0u}) {
      put32(sack, edge + n);
      put32(moved, edge);
    }
    s = reply({.flags = ack, .sequence = 901, .acknowledgement = 106 + n, .options = sack});
    EXPECT_EQ(s.acknowledgement, 106u);
    EXPECT_EQ(hex(s.options), hex(moved));
    EXPECT_EQ(say(fin_ack, 111, 901).sequence, 111 + n);
    EXPECT_EQ(say(rst, 112, 0).sequence, 112 + n);
  }
}

TEST_F(nat_world, proxy_refuses_data_before_the_header) {
  bench b{tables.view()};
  refused(b,
          frame_of({.from = client(proxy4),
                    .to = vip(proxy4),
                    .flags = syn,
                    .payload = proxy_of(at4({1, 2, 3, 4}, 5), vip(proxy4))}),
          drop_unsupported_protocol);
}

TEST_F(nat_world, proxy_needs_room) {
  bench b{tables.view()};
  const segment there =
      to_server(b, {.from = client(proxy4), .to = vip(proxy4), .flags = syn, .sequence = 100});
  to_client(b, {.from = there.to,
                .to = there.from,
                .flags = syn_ack,
                .sequence = 9,
                .acknowledgement = 101});
  segment s{.from = client(proxy4),
            .to = vip(proxy4),
            .flags = ack,
            .sequence = 101,
            .acknowledgement = 10,
            .payload = bytes(1433, 1)};
  const result big = b.run(frame_of(s));
  EXPECT_EQ(static_cast<int>(big.outcome), static_cast<int>(verdict::reply)) << "told its sender";
  EXPECT_EQ(b.count(drop_too_big), 1u);
  s.payload.pop_back();
  EXPECT_EQ(to_server(b, s).payload.size(), 1460u);
  const result r = b.run({{frame_of(s), wire_port, 26}})[0];
  EXPECT_EQ(static_cast<int>(r.reason), static_cast<int>(drop_no_headroom));
}

// A connection whose SYN nobody saw is left alone.
TEST_F(nat_world, proxy_not_in_the_middle_of_a_stream) {
  bench b{tables.view()};
  const segment s = to_server(b, {.from = client(proxy4),
                                  .to = vip(proxy4),
                                  .flags = psh_ack,
                                  .sequence = 5000,
                                  .payload = bytes(5, 1)});
  EXPECT_EQ(s.sequence, 5000u);
  EXPECT_EQ(s.payload.size(), 5u);
}

// Both stacks in small: a client that sends a stream and a backend that puts it together, over
// a network that loses, doubles and reorders in both directions. Whatever happens the backend
// has read the header and then the client's bytes, and every acknowledgement that the client
// sees is of what it has sent. The numbers wrap on the way.
TEST_F(nat_world, proxy_stream_over_a_bad_network) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    bench b{tables.view()};
    const unsigned service = seed % 2 != 0 ? proxy4 : proxy6;
    const end c = client(service), v = vip(service);
    const std::uint32_t isn = 0xffffffffu - static_cast<std::uint32_t>(random() % 3000);
    bytes stream(2000 + random() % 2000);
    for (auto& x : stream) x = static_cast<std::uint8_t>(random());
    const bytes wanted = proxy_of(c, v) + stream;

    const segment there = to_server(b, {.from = c, .to = v, .flags = syn, .sequence = isn});
    to_client(b, {.from = there.to,
                  .to = there.from,
                  .flags = syn_ack,
                  .sequence = 1,
                  .acknowledgement = isn + 1});
    std::vector<bool> have(wanted.size());
    bytes got(wanted.size());
    std::uint32_t client_acked = 0;  // of the stream, as the client knows
    std::vector<segment> to_b{{.from = c, .to = v, .flags = ack, .sequence = isn + 1}}, to_c;
    unsigned rounds = 0;
    for (; client_acked < stream.size() && rounds < 20000; ++rounds) {
      // The client sends something of its window, old or new.
      const std::uint32_t from = client_acked + static_cast<std::uint32_t>(random() % 4) * 100;
      if (from < stream.size()) {
        const std::size_t size = std::min<std::size_t>(1 + random() % 300, stream.size() - from);
        to_b.push_back(
            {.from = c,
             .to = v,
             .flags = psh_ack,
             .sequence = isn + 1 + from,
             .payload = bytes(stream.begin() + from,
                              stream.begin() + from + static_cast<std::ptrdiff_t>(size))});
      }
      std::shuffle(to_b.begin(), to_b.end(), random);
      if (random() % 3 == 0 && !to_b.empty()) to_b.pop_back();  // lost before us
      while (!to_b.empty() && random() % 4 != 0) {
        const segment out = to_server(b, to_b.back());
        if (random() % 5 != 0) to_b.pop_back();
        if (random() % 4 == 0) continue;  // lost behind us
        const std::uint32_t at = out.sequence - (isn + 1);
        for (std::size_t i = 0; i < out.payload.size(); ++i) {
          ASSERT_LT(at + i, wanted.size());
          got[at + i] = out.payload[i];
          have[at + i] = true;
        }
        const auto next =
            static_cast<std::uint32_t>(std::find(have.begin(), have.end(), false) - have.begin());
        to_c.push_back({.from = there.to,
                        .to = there.from,
                        .flags = ack,
                        .sequence = 2,
                        .acknowledgement = isn + 1 + next});
      }
      std::shuffle(to_c.begin(), to_c.end(), random);
      if (!to_c.empty() && random() % 2 == 0) {
        const segment in = to_client(b, to_c.back());
        if (random() % 5 != 0) to_c.pop_back();
        const std::uint32_t acknowledged = in.acknowledgement - (isn + 1);
        if (static_cast<std::int32_t>(acknowledged - client_acked) > 0) {
          ASSERT_LE(acknowledged, stream.size());
          client_acked = acknowledged;
        }
      }
      if (to_c.size() > 20) to_c.clear();
      if (to_b.size() > 20) to_b.clear();
    }
    EXPECT_EQ(client_acked, stream.size()) << rounds;
    EXPECT_EQ(hex(got), hex(wanted));
  }
}

}  // namespace
}  // namespace sluice::test
