// SPDX-License-Identifier: Apache-2.0
// ICMP errors about translated flows, both ways: every byte of what comes out, whatever the
// quote's length, and what is not passed on.
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/nat_world.hpp"

namespace sluice::test {
namespace {

using enum abi::counter_id;

constexpr unsigned syn = 0x02, ack = 0x10, syn_ack = 0x12;
const mac other_router{2, 0, 0, 0, 0xd, 1};

// An error from `from` to `to` that quotes the first `cut` bytes of a packet.
struct error {
  end from;
  end to;
  bytes quote;
  std::size_t cut{SIZE_MAX};
  unsigned type{0};  // 0: fragmentation needed, packet too big
  unsigned code{0};
  std::uint32_t word{1400};
  unsigned ttl{50};
  unsigned wrong{0};
};
bytes error_frame(const error& e, const mac& to, const mac& from) {
  const bytes quote = first(e.quote, e.cut);
  if (e.from.address.is_v4()) {
    const auto quad_of = [](const ip_address& a) {
      return quad{a.bytes[12], a.bytes[13], a.bytes[14], a.bytes[15]};
    };
    const bytes message =
        icmp4(e.type == 0 ? 3 : e.type, e.type == 0 ? 4 : e.code, e.word, quote, e.wrong);
    return ethernet(0x0800,
                    ip4({.source = quad_of(e.from.address),
                         .destination = quad_of(e.to.address),
                         .protocol = 1,
                         .ttl = e.ttl},
                        message),
                    {}, to, from);
  }
  const bytes message = icmp6(e.from.address.bytes, e.to.address.bytes, e.type == 0 ? 2 : e.type,
                              e.code, e.word, quote, e.wrong);
  return ethernet(0x86dd,
                  ip6({.source = e.from.address.bytes,
                       .destination = e.to.address.bytes,
                       .next = 58,
                       .hop_limit = e.ttl},
                      message),
                  {}, to, from);
}

class nat_errors : public nat_world {
 protected:
  static end router(unsigned service) {
    return is_v4(service) ? at4({10, 0, 9, 9}, 0) : at6(9, 9, 0);
  }
  static end far_router(unsigned service) {
    return is_v4(service) ? at4({192, 0, 2, 77}, 0) : at6(0x77, 9, 0);
  }
  // passed() puts an error in and wants exactly `wanted` sent.
  static void passed(bench& b, const error& in, const mac& in_from, const error& wanted,
                     const mac& out_to, unsigned out_port) {
    const result r = b.run(error_frame(in, our_mac, in_from));
    ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward))
        << "dropped for " << static_cast<int>(r.reason);
    EXPECT_EQ(unsigned{r.out_port}, out_port);
    EXPECT_EQ(hex(r.frame), hex(error_frame(wanted, out_to, bench_ports[out_port].mac)));
  }
  static segment opening(unsigned service, std::size_t size = 33) {
    return {.from = client(service),
            .to = vip(service),
            .protocol = is_udp(service) ? 17u : 6u,
            .flags = syn,
            .payload = bytes(is_udp(service) ? size : 0, 0x5a)};
  }
  static constexpr std::array<unsigned, 6> plain{nat4, nat_udp4, nat6, full4, full_udp4, full6};
};

TEST_F(nat_errors, about_what_went_to_a_backend) {
  bench b{tables.view()};
  std::uint64_t passed_on = 0;
  for (const unsigned service : plain) {
    const std::size_t header = is_v4(service) ? 20 : 40;
    const segment sent_by_client = opening(service);
    const segment there = to_server(b, sent_by_client);
    segment wanted = sent_by_client;
    wanted.ttl = there.ttl;
    for (const std::size_t quoted : {8u, 9u, 16u, 18u, 19u, 20u, 500u})
      for (const unsigned kind : {0u, is_v4(service) ? 11u : 3u, is_v4(service) ? 12u : 1u}) {
        SCOPED_TRACE(testing::Message() << service << " " << quoted << " " << kind);
        error in{.from = router(service),
                 .to = there.from,
                 .quote = ip_of(there),
                 .cut = header + quoted,
                 .type = kind,
                 .code = kind == 0 ? 0u : 1u};
        error out = in;
        out.from = vip(service);
        out.to = client(service);
        out.quote = ip_of(wanted);
        --out.ttl;
        passed(b, in, other_router, out, router_mac, wire_port);
        ++passed_on;
      }
  }
  EXPECT_EQ(b.count(nat_errors_to_client), passed_on);
}

TEST_F(nat_errors, about_what_went_to_a_client) {
  bench b{tables.view()};
  std::uint64_t passed_on = 0;
  for (const unsigned service : plain) {
    const std::size_t header = is_v4(service) ? 20 : 40;
    const segment there = to_server(b, opening(service));
    segment reply{.from = there.to,
                  .to = there.from,
                  .protocol = there.protocol,
                  .flags = syn_ack,
                  .payload = bytes(60, 0x77)};
    const segment at_client = to_client(b, reply);
    reply.ttl = at_client.ttl;
    for (const std::size_t quoted : {8u, 15u, 18u, 21u, 500u})
      for (const unsigned kind : {0u, is_v4(service) ? 11u : 3u}) {
        SCOPED_TRACE(testing::Message() << service << " " << quoted << " " << kind);
        const error in{.from = far_router(service),
                       .to = vip(service),
                       .quote = ip_of(at_client),
                       .cut = header + quoted,
                       .type = kind};
        error out = in;
        // full-nat: in the name of the address that the backend knows.
        if (there.from != client(service)) out.from = there.from;
        out.to = server(service);
        out.quote = ip_of(reply);
        --out.ttl;
        passed(b, in, router_mac, out, server_mac, 0);
        ++passed_on;
      }
  }
  EXPECT_EQ(b.count(nat_errors_to_backend), passed_on);
}

TEST_F(nat_errors, udp_without_a_checksum) {
  bench b{tables.view()};
  segment s = opening(nat_udp4);
  s.no_sum = true;
  ASSERT_EQ(static_cast<int>(b.run(frame_of(s)).outcome), static_cast<int>(verdict::forward));
  s.ttl = 60;
  segment there = s;
  there.to = server(nat_udp4);
  error in{.from = router(nat_udp4), .to = s.from, .quote = ip_of(there)};
  error out = in;
  out.from = vip(nat_udp4);
  out.quote = ip_of(s);
  --out.ttl;
  passed(b, in, other_router, out, router_mac, wire_port);
}

// What went to the backend is longer than what the client sent: so is the MTU that it needs.
TEST_F(nat_errors, mtu_less_what_was_put_in) {
  bench b{tables.view()};
  for (const unsigned service : {toa4, toa6, proxy4, proxy6}) {
    SCOPED_TRACE(service);
    const std::uint32_t added = service == toa4     ? 8
                                : service == toa6   ? 20
                                : service == proxy4 ? 28
                                                    : 52;
    const bool proxy = service == proxy4 || service == proxy6;
    segment open = opening(service);
    open.sequence = 5000;
    const segment there = to_server(b, open);
    segment answer{.from = server(service),
                   .to = there.from,
                   .flags = syn_ack,
                   .sequence = 9000,
                   .acknowledgement = 5001};
    to_client(b, answer);
    const segment data{.from = client(service),
                       .to = vip(service),
                       .flags = ack,
                       .sequence = 5001,
                       .acknowledgement = 9001,
                       .payload = bytes(100, 1)};
    // As it went out, with what was put in; quoted with 8 bytes only, and longer.
    const segment grown = to_server(b, data);
    segment wanted = data;
    wanted.ttl = grown.ttl;
    error in{.from = router(service),
             .to = there.from,
             .quote = ip_of(grown),
             .cut = (is_v4(service) ? 20u : 40u) + 8u};
    const bytes frame = b.run(error_frame(in, our_mac, other_router)).frame;
    const std::size_t message = is_v4(service) ? 34 : 54;
    const auto told = [&](const bytes& f) {
      return unsigned{f[message + 6]} << 8 | f[message + 7];
    };
    EXPECT_EQ(told(frame), 1400 - added);
    // The number of the quoted segment is the client's.
    const auto sequence = [&](const bytes& f) {
      const std::size_t at = message + 8 + (is_v4(service) ? 20u : 40u) + 4;
      return unsigned{f[at]} << 24 | unsigned{f[at + 1]} << 16 | unsigned{f[at + 2]} << 8 |
             f[at + 3];
    };
    EXPECT_EQ(sequence(frame), 5001u);
    // When the backend has acknowledged the header nothing is put in any more, but numbers
    // are shifted.
    if (!proxy) continue;
    answer.flags = ack;
    answer.sequence = 9001;
    answer.acknowledgement = 5001 + added;
    to_client(b, answer);
    segment later = data;
    later.sequence = 5101;
    const segment shifted = to_server(b, later);
    EXPECT_EQ(shifted.sequence, 5101 + added);
    later.ttl = shifted.ttl;
    in.quote = ip_of(shifted);
    in.cut = SIZE_MAX;
    error out = in;
    out.from = vip(service);
    out.to = client(service);
    out.quote = ip_of(later);
    --out.ttl;
    passed(b, in, other_router, out, router_mac, wire_port);
  }
}

TEST_F(nat_errors, what_is_not_passed_on) {
  bench b{tables.view()};
  const auto about = [&](const error& e, abi::counter_id why) {
    refused(b, error_frame(e, our_mac, other_router), why);
  };
  const segment there = to_server(b, opening(full4));
  const error good{.from = router(full4), .to = there.from, .quote = ip_of(there)};
  error bad = good;
  bad.wrong = 0x55;
  about(bad, drop_bad_icmp);
  bad = good;
  bad.ttl = 1;
  about(bad, drop_ttl_expired);
  // Of a flow that there is not; the quote's source is not who gets the error.
  bad = good;
  segment unknown = there;
  unknown.to.port = 8081;
  bad.quote = ip_of(unknown);
  about(bad, drop_icmp_unmatched);
  bad = good;
  bad.to = client(full4);
  about(bad, drop_not_for_us);
  bad = good;
  bad.cut = 27;
  about(bad, drop_not_for_us);
  // No error, but an echo reply.
  bad = good;
  bad.type = 129;
  about(bad, drop_not_for_us);
  // The other way.
  segment reply{.from = vip(full4), .to = client(full4), .flags = ack};
  error back{.from = far_router(full4), .to = vip(full4), .quote = ip_of(reply)};
  bad = back;
  bad.wrong = 1;
  about(bad, drop_bad_icmp);
  bad = back;
  bad.ttl = 1;
  about(bad, drop_ttl_expired);
  reply.to.port = 40001;
  bad = back;
  bad.quote = ip_of(reply);
  about(bad, drop_icmp_unmatched);
  tables.backend(full4).flags = abi::backend_in_use;
  about(back, drop_no_next_hop);
  EXPECT_EQ(b.count(nat_errors_to_client) + b.count(nat_errors_to_backend), 0u);
}

TEST_F(nat_errors, on_the_wrong_worker) {
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
    const error in{.from = router(service), .to = there.from, .quote = ip_of(there)};
    const segment reply{
        .from = vip(service), .to = client(service), .protocol = there.protocol, .flags = ack};
    const error back{.from = far_router(service), .to = vip(service), .quote = ip_of(reply)};
    for (const error& e : {in, back}) {
      const bytes frame = error_frame(e, our_mac, other_router);
      const result r = a.run(frame);
      EXPECT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::hand_over));
      EXPECT_EQ(unsigned{r.out_port}, 1u);
      EXPECT_EQ(hex(r.frame), hex(frame)) << "untouched";
      EXPECT_EQ(static_cast<int>(b.run_handed(frame).outcome), static_cast<int>(verdict::forward));
    }
  }
}

// Any byte of an error changed or cut off: nothing out of bounds, each packet counted once.
TEST_F(nat_errors, any_byte_changed) {
  bench b{tables.view()};
  std::uint64_t packets = 0;
  for (const unsigned service : {nat_udp4, full4, full6, proxy4}) {
    const segment there = to_server(b, opening(service));
    const segment reply{
        .from = vip(service), .to = client(service), .protocol = there.protocol, .flags = ack};
    ++packets;
    for (const error& e :
         {error{.from = router(service), .to = there.from, .quote = ip_of(there)},
          error{.from = far_router(service), .to = vip(service), .quote = ip_of(reply)}}) {
      const bytes frame = error_frame(e, our_mac, other_router);
      for (std::size_t at = 0; at < frame.size(); ++at)
        for (const unsigned value : {0u, 1u, 5u, 0x7fu, 0xffu}) {
          bytes changed = frame;
          changed[at] = static_cast<std::uint8_t>(value);
          b.run(changed);
          changed.resize(at);
          b.run(changed);
          packets += 2;
        }
    }
  }
  EXPECT_EQ(b.decided(), packets);
}

}  // namespace
}  // namespace sluice::test
