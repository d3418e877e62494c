// SPDX-License-Identifier: Apache-2.0
// ICMP and ICMPv6: errors that quote a balanced packet or one of our tunnels, echo, and
// what is answered to a packet that is too big.
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/rows.hpp"

namespace sluice::test {

using enum abi::counter_id;

namespace {

constexpr quad router{192, 0, 2, 1};
constexpr quad vip_quad{198, 51, 100, 10};
constexpr quad client_quad{203, 0, 113, 7};
constexpr quad echo_quad{198, 51, 100, 20};
constexpr quad small_quad{198, 51, 100, 13};
constexpr hexadec router6{0x20, 0x01, 0x0d, 0xb8, 0, 0xe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr hexadec echo6_address{0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20};

// An answer leaves by the port it came in by (1), to the MAC it came from.
bytes answer(unsigned type, const bytes& packet, const std::vector<tag>& tags = {}) {
  return ethernet(type, packet, tags, client_mac, port_mac_of(1));
}

// The packet of the VIP that a router could not deliver.
bytes undelivered4(unsigned vip_port, unsigned client_port, const bytes& more = bytes(40, 7),
                   const quad& vip = vip_quad) {
  return ip4({.source = vip, .destination = client_quad, .ttl = 3},
             tcp({.source = vip_port, .destination = client_port, .flags = 0x10}, more));
}
bytes undelivered6(unsigned vip_port, unsigned client_port, const bytes& between = {},
                   unsigned next = 6) {
  return ip6({.source = vip6, .destination = client6, .next = next},
             between + tcp({.source = vip_port, .destination = client_port, .flags = 0x10}));
}

void steered4(std::vector<row>& rows) {
  const ip4_fields outer{.source = router, .protocol = 1, .ttl = 250, .tos = 0xc0, .fragment = 0};
  ip4_fields hop = outer;
  --hop.ttl;
  const auto add = [&](std::string what, const bytes& message) {
    rows.push_back(sent("ICMP error steered: " + std::move(what),
                        padded(ethernet(0x0800, ip4(outer, message)), 60), web_4in4,
                        framed(web_4in4, 0x0800, in4(ip4(hop, message), 4, 0xc0))));
  };
  const bytes quote = undelivered4(443, 41000);
  add("host unreachable", icmp4(3, 1, 0, quote));
  add("port unreachable", icmp4(3, 3, 0, quote));
  add("fragmentation needed", icmp4(3, 4, 1280, quote));
  add("time exceeded", icmp4(11, 0, 0, quote));
  add("parameter problem", icmp4(12, 0, 0x08000000, quote));
  add("8 bytes of TCP quoted", icmp4(3, 1, 0, first(quote, 28)));
  add("odd number of bytes quoted", icmp4(3, 1, 0, first(quote, 33)));
  add("quoted packet with IP options",
      icmp4(3, 1, 0,
            ip4({.source = vip_quad, .destination = client_quad, .options = bytes(8, 1)},
                tcp({443, 41001}))));
  add("quoted first fragment",
      icmp4(3, 1, 0,
            ip4({.source = vip_quad, .destination = client_quad, .fragment = 0x2000},
                tcp({443, 41001}))));
  add("quoted checksum is wrong",
      icmp4(3, 1, 0,
            ip4({.source = vip_quad, .destination = client_quad, .checksum_error = 1},
                tcp({443, 41001}))));
  add("with RFC 4884 extensions", icmp4(11, 0, 0x00200000, padded(quote, 128) + bytes(12, 0x20)));

  const bytes dns = ip4({.source = vip_quad, .destination = client_quad, .protocol = 17},
                        udp({53, 41002}, bytes(64, 1)));
  const bytes message = icmp4(3, 3, 0, dns);
  rows.push_back(sent("ICMP error steered: of a UDP service", ethernet(0x0800, ip4(outer, message)),
                      dns4, framed(dns4, 0x0800, in4(ip4(hop, message), 4, 0xc0))));
  const bytes to_six = icmp4(3, 1, 0, undelivered4(80, 41003));
  const ip4_fields no_ports = outer;
  rows.push_back(
      sent("ICMP error steered: 4in6, label by the addresses alone",
           ethernet(0x0800, ip4(outer, to_six)), web_4in6,
           framed(web_4in6, 0x86dd, in6(ip4(hop, to_six), 4, label4(no_ports, 0, 0), 0xc0))));
  // What is addressed anew: an ICMP message's own checksum covers no addresses.
  const quad dscp_quad{198, 51, 100, 15};
  const bytes to_dscp = icmp4(3, 4, 1280, undelivered4(80, 41005, {}, dscp_quad));
  rows.push_back(sent(
      "ICMP error steered: dsr-dscp",
      ethernet(0x0800, ip4({.source = router, .destination = dscp_quad, .protocol = 1}, to_dscp)),
      dscp_tcp4,
      framed(
          dscp_tcp4, 0x0800,
          ip4({.source = router, .destination = backend4, .protocol = 1, .ttl = 60, .tos = 10 << 2},
              to_dscp))));
  const ip4_fields dsr_ip{.source = router, .destination = {198, 51, 100, 11}, .protocol = 1};
  const bytes dsr_frame =
      ethernet(0x0800, ip4(dsr_ip, icmp4(3, 1, 0, undelivered4(80, 41004, {}, {198, 51, 100, 11}))),
               {{0x8100, 5}});
  rows.push_back(
      sent("ICMP error steered: dsr-l2, VLAN tag", dsr_frame, dsr4,
           framed(dsr4, 0x0800, bytes(dsr_frame.begin() + 18, dsr_frame.end()), {{0x8100, 5}})));
}

void refused4(std::vector<row>& rows) {
  const ip4_fields outer{.source = router, .protocol = 1};
  const auto add = [&](std::string what, const bytes& message, abi::counter_id reason) {
    rows.push_back(
        dropped("ICMP error: " + std::move(what), ethernet(0x0800, ip4(outer, message)), reason));
  };
  const bytes quote = undelivered4(443, 41000);
  add("checksum is wrong", icmp4(3, 1, 0, quote, 0x0100), drop_bad_icmp);
  add("7 bytes of ICMP", first(icmp4(3, 1, 0, quote), 7), drop_bad_icmp);
  add("nothing quoted", icmp4(3, 1, 0, {}), drop_bad_icmp);
  add("half an IP header quoted", icmp4(3, 1, 0, first(quote, 19)), drop_bad_icmp);
  add("7 bytes of TCP quoted", icmp4(3, 1, 0, first(quote, 27)), drop_bad_icmp);
  add("quoted version 5", icmp4(3, 1, 0, ip4({.version = 5}, tcp({}))), drop_bad_icmp);
  add("quoted IHL 4", icmp4(3, 1, 0, ip4({.ihl = 4}, tcp({}))), drop_bad_icmp);
  add("quoted IHL beyond the quote",
      icmp4(3, 1, 0, ip4({.source = vip_quad, .ihl = 15}, tcp({443, 41000}))), drop_bad_icmp);
  add("IPv6 quoted in ICMP", icmp4(3, 1, 0, undelivered6(443, 41000)), drop_bad_icmp);
  add("quotes another address's packet",
      icmp4(3, 1, 0, undelivered4(80, 41000, {}, {198, 51, 100, 11})), drop_icmp_unmatched);
  add("quotes a port without a service", icmp4(3, 1, 0, undelivered4(444, 41000)),
      drop_icmp_unmatched);
  add("quotes a later fragment",
      icmp4(3, 1, 0,
            ip4({.source = vip_quad, .destination = client_quad, .fragment = 0x0100},
                tcp({443, 41000}))),
      drop_icmp_unmatched);
  add("quotes ICMP", icmp4(11, 0, 0, ip4({.source = vip_quad, .protocol = 1}, bytes(8, 0))),
      drop_icmp_unmatched);
  rows.push_back(dropped(
      "ICMP error: TTL 1",
      ethernet(0x0800, ip4({.source = router, .protocol = 1, .ttl = 1}, icmp4(3, 1, 0, quote))),
      drop_ttl_expired));
  rows.push_back(
      dropped("ICMP error: of a service without a backend",
              ethernet(0x0800, ip4({.source = router, .destination = small_quad, .protocol = 1},
                                   icmp4(3, 1, 0, undelivered4(80, 41000, {}, small_quad)))),
              drop_no_backend));
  rows.push_back(dropped("ICMP error: in two buffers",
                         ethernet(0x0800, ip4(outer, icmp4(3, 1, 0, quote))), drop_bad_icmp));
  rows.back().first_segment = 80;
  rows.push_back(dropped(
      "ICMP error: too big for the tunnel, and no error about an error",
      ethernet(0x0800, ip4({.source = router, .destination = small_quad, .protocol = 1},
                           icmp4(3, 1, 0, undelivered4(83, 41000, bytes(100, 1), small_quad)))),
      drop_too_big));
}

void errors6(std::vector<row>& rows) {
  const auto add = [&](std::string what, const bytes& message, const bytes& between = {},
                       unsigned next = 58) {
    const ip6_fields outer{.source = router6, .next = next, .hop_limit = 60};
    ip6_fields hop = outer;
    --hop.hop_limit;
    rows.push_back(
        sent("ICMPv6 error steered: " + std::move(what),
             ethernet(0x86dd, ip6(outer, between + message)), web_6in6,
             framed(web_6in6, 0x86dd, in6(ip6(hop, between + message), 41, label6_bare(outer)))));
  };
  const auto message = [](unsigned type, unsigned code, std::uint32_t word, const bytes& quote,
                          unsigned error = 0) {
    return icmp6(router6, vip6, type, code, word, quote, error);
  };
  const bytes quote = undelivered6(443, 42000);
  add("no route", message(1, 0, 0, quote));
  add("packet too big", message(2, 0, 1280, quote));
  add("hop limit exceeded", message(3, 0, 0, quote));
  add("parameter problem", message(4, 1, 6, quote));
  add("8 bytes of TCP quoted", message(1, 4, 0, first(quote, 48)));
  add("quoted packet with extension headers",
      message(1, 0, 0, undelivered6(443, 42001, extension(60) + extension(6, 1), 0)));
  add("quoted first fragment", message(1, 0, 0, undelivered6(443, 42001, fragment6(6, 1), 44)));
  add("behind a destination options header", message(1, 0, 0, quote), extension(58), 60);

  // ICMPv6's does.
  hexadec dscp6 = vip6;
  dscp6[15] = 0x15;
  const bytes undelivered = ip6({.source = dscp6, .destination = client6}, tcp({80, 42003, 0x10}));
  rows.push_back(sent("ICMPv6 error steered: dsr-dscp",
                      ethernet(0x86dd, ip6({.source = router6, .destination = dscp6, .next = 58},
                                           icmp6(router6, dscp6, 2, 0, 1280, undelivered))),
                      dscp_tcp6,
                      framed(dscp_tcp6, 0x86dd,
                             ip6({.source = router6,
                                  .destination = backend6,
                                  .next = 58,
                                  .hop_limit = 60,
                                  .traffic_class = 10 << 2},
                                 icmp6(router6, backend6, 2, 0, 1280, undelivered)))));

  const auto refuse = [&](std::string what, const bytes& m, abi::counter_id reason) {
    rows.push_back(dropped("ICMPv6 error: " + std::move(what),
                           ethernet(0x86dd, ip6({.source = router6, .next = 58}, m)), reason));
  };
  refuse("checksum is wrong", message(2, 0, 1280, quote, 2), drop_bad_icmp);
  refuse("checksum without the pseudo-header", icmp4(2, 0, 1280, quote), drop_bad_icmp);
  refuse("nothing quoted", message(2, 0, 1280, {}), drop_bad_icmp);
  refuse("half an IPv6 header quoted", message(2, 0, 1280, first(quote, 39)), drop_bad_icmp);
  refuse("extension header cut",
         message(1, 0, 0, first(undelivered6(443, 1, extension(6), 60), 42)), drop_bad_icmp);
  refuse("IPv4 quoted in ICMPv6", message(1, 0, 0, undelivered4(443, 41000)), drop_bad_icmp);
  refuse("quotes a later fragment",
         message(1, 0, 0, undelivered6(443, 42001, fragment6(6, 0x100), 44)), drop_icmp_unmatched);
  refuse("quotes a port without a service", message(1, 0, 0, undelivered6(444, 42000)),
         drop_icmp_unmatched);
  rows.push_back(dropped("ICMPv6 error: hop limit 1",
                         ethernet(0x86dd, ip6({.source = router6, .next = 58, .hop_limit = 1},
                                              message(1, 0, 0, quote))),
                         drop_ttl_expired));
}

// What a router between us and a backend says about our tunnel packets.
void translated_errors(std::vector<row>& rows) {
  const ip4_fields outer{.source = {10, 0, 1, 1}, .destination = outer_source4, .protocol = 1};
  const bytes inner = ip4({.ttl = 60}, tcp({43000, 443, 0x10}, bytes(1400, 3)));
  const bytes tunnel = in4(inner, 4);
  const auto reply4 = [](const bytes& quote, unsigned mtu) {
    return answer(0x0800, ip4({.source = vip_quad,
                               .destination = client_quad,
                               .protocol = 1,
                               .ttl = 64,
                               .tos = 0xc0,
                               .id = 0},
                              icmp4(3, 4, mtu, quote)));
  };
  const auto from4 = [&](const bytes& message) { return ethernet(0x0800, ip4(outer, message)); };
  rows.push_back(answered("tunnel error: 4in4, MTU 1400 is 1380 for the client",
                          from4(icmp4(3, 4, 1400, first(tunnel, 528))),
                          reply4(first(inner, 508), 1380)));
  rows.push_back(answered("tunnel error: 4in4, only 8 bytes of inner TCP quoted",
                          from4(icmp4(3, 4, 1400, first(tunnel, 48))),
                          reply4(first(inner, 28), 1380)));
  rows.push_back(answered("tunnel error: more quoted than an error may have",
                          from4(icmp4(3, 4, 1400, first(tunnel, 1000))),
                          reply4(first(inner, 548), 1380)));
  rows.push_back(answered("tunnel error: a router that does not say its MTU",
                          from4(icmp4(3, 4, 0, first(tunnel, 528))),
                          reply4(first(inner, 508), 986)));
  rows.push_back(answered("tunnel error: an MTU that cannot be",
                          from4(icmp4(3, 4, 20, first(tunnel, 528))),
                          reply4(first(inner, 508), 68)));
  // 6in4: the router speaks ICMP, the client gets ICMPv6.
  const bytes inner6 = ip6({.hop_limit = 60}, tcp({43001, 80, 0x10}, bytes(1380, 3)));
  const bytes tunnel64 = in4(inner6, 41);
  const auto reply6 = [](const bytes& quote, std::uint32_t mtu) {
    return answer(0x86dd, ip6({.source = vip6,
                               .destination = client6,
                               .next = 58,
                               .hop_limit = 64,
                               .traffic_class = 0xc0,
                               .label = 0},
                              icmp6(vip6, client6, 2, 0, mtu, quote)));
  };
  rows.push_back(answered("tunnel error: 6in4", from4(icmp4(3, 4, 1400, first(tunnel64, 528))),
                          reply6(first(inner6, 508), 1380)));
  rows.push_back(answered("tunnel error: 6in4, never below 1280",
                          from4(icmp4(3, 4, 1290, first(tunnel64, 528))),
                          reply6(first(inner6, 508), 1280)));
  // 4in6 and 6in6: the router speaks ICMPv6.
  const auto from6 = [](const bytes& quote, std::uint32_t mtu) {
    return ethernet(0x86dd,
                    ip6({.source = router6, .destination = outer_source6, .next = 58},
                        icmp6(router6, outer_source6, 2, 0, mtu, quote)),
                    {{0x8100, 9}});
  };
  const bytes inner46 = ip4({.ttl = 60}, tcp({43002, 80, 0x10}, bytes(1400, 3)));
  rows.push_back(answered("tunnel error: 4in6, VLAN tag stays",
                          from6(first(in6(inner46, 4, 77), 1232), 1400),
                          answer(0x0800,
                                 ip4({.source = vip_quad,
                                      .destination = client_quad,
                                      .protocol = 1,
                                      .ttl = 64,
                                      .tos = 0xc0,
                                      .id = 0},
                                     icmp4(3, 4, 1360, first(inner46, 548))),
                                 {{0x8100, 9}})));
  const bytes inner66 = ip6({.hop_limit = 60}, tcp({43003, 443, 0x10}, bytes(1400, 3)));
  rows.push_back(answered("tunnel error: 6in6", from6(first(in6(inner66, 41, 77), 1232), 1400),
                          answer(0x86dd,
                                 ip6({.source = vip6,
                                      .destination = client6,
                                      .next = 58,
                                      .hop_limit = 64,
                                      .traffic_class = 0xc0,
                                      .label = 0},
                                     icmp6(vip6, client6, 2, 0, 1360, first(inner66, 1192))),
                                 {{0x8100, 9}})));

  // gue of variant 1, as we send it, and gre.
  const quad gue_quad{198, 51, 100, 14};
  const auto reply_gue = [&](const bytes& quote, unsigned mtu) {
    return answer(0x0800, ip4({.source = gue_quad,
                               .destination = client_quad,
                               .protocol = 1,
                               .ttl = 64,
                               .tos = 0xc0,
                               .id = 0},
                              icmp4(3, 4, mtu, quote)));
  };
  const bytes in_gue = ip4({.destination = gue_quad}, tcp({43004, 443, 0x10}, bytes(1400, 3)));
  rows.push_back(answered("tunnel error: gue",
                          from4(icmp4(3, 4, 1400, first(in4(udp({50000, 6080}, in_gue), 17), 528))),
                          reply_gue(first(in_gue, 500), 1372)));
  const bytes in_gre = ip4({.destination = gue_quad}, tcp({43005, 444, 0x10}, bytes(1400, 3)));
  rows.push_back(
      answered("tunnel error: gre",
               from4(icmp4(3, 4, 1400, first(in4(bytes{0, 0, 0x08, 0x00} + in_gre, 47), 528))),
               reply_gue(first(in_gre, 504), 1376)));

  const auto left_alone = [&](std::string what, const bytes& message) {
    row r = left("tunnel error: " + std::move(what), from4(message), kernel_reason::not_for_a_vip,
                 drop_not_for_us);
    rows.push_back(std::move(r));
  };
  left_alone("host unreachable is the kernel's", icmp4(3, 1, 0, first(tunnel, 528)));
  left_alone("wrong checksum", icmp4(3, 4, 1400, first(tunnel, 528), 1));
  left_alone("only the outer header and 8 bytes quoted", icmp4(3, 4, 1400, first(tunnel, 28)));
  left_alone("not our tunnel's source",
             icmp4(3, 4, 1400, ip4({{192, 0, 2, 11}, backend4, 4, 64}, first(inner, 100))));
  left_alone("not to the backend of that flow",
             icmp4(3, 4, 1400, ip4({outer_source4, {10, 0, 1, 12}, 4, 64}, first(inner, 100))));
  left_alone("inner packet is for no service",
             icmp4(3, 4, 1400, in4(ip4({}, tcp({43000, 444})), 4)));
  left_alone("inner packet without DF: the client would not care",
             icmp4(3, 4, 1400, in4(ip4({.fragment = 0}, tcp({43000, 443})), 4)));
  left_alone("gue to another UDP port", icmp4(3, 4, 1400, in4(udp({50000, 6081}, in_gue), 17)));
  left_alone("gre with a key",
             icmp4(3, 4, 1400, in4(bytes{0x20, 0, 0x08, 0x00, 0, 0, 0, 1} + in_gre, 47)));
  left_alone("inner version is not what the outer header says", icmp4(3, 4, 1400, in4(inner6, 4)));
  rows.push_back(dropped("tunnel error: the packet would have fitted",
                         from4(icmp4(3, 4, 1500, first(tunnel, 528))), drop_icmp_unmatched));
}

void echo(std::vector<row>& rows) {
  const bytes data(56, 0x33);
  const ip4_fields to{.destination = echo_quad, .protocol = 1};
  const ip4_fields back{.source = echo_quad, .destination = client_quad, .protocol = 1, .ttl = 64};
  const auto add = [&](std::string what, const ip4_fields& f, const ip4_fields& b,
                       const bytes& payload, std::uint32_t word,
                       const std::vector<tag>& tags = {}) {
    rows.push_back(answered("echo: " + std::move(what),
                            padded(ethernet(0x0800, ip4(f, icmp4(8, 0, word, payload)), tags), 60),
                            padded(answer(0x0800, ip4(b, icmp4(0, 0, word, payload)), tags), 60)));
  };
  add("ping", to, back, data, 0x12340001);
  add("ping without data", to, back, {}, 0);
  add("ping, odd number of bytes", to, back, bytes(13, 0xff), 0xffffffff);
  add("ping behind QinQ", to, back, data, 7, {{0x88a8, 3}, {0x8100, 4}});
  // Every carry that the two incremental checksums can meet.
  for (const std::uint32_t word : {0xf7feu, 0xf7ffu, 0xf800u, 0xf801u, 0xfffeu, 1u})
    add("checksum edge " + std::to_string(word), to, back, {}, word << 16);
  for (const unsigned ttl : {1u, 2u, 63u, 64u, 65u, 255u}) {
    ip4_fields f = to;
    f.ttl = ttl;
    add("TTL " + std::to_string(ttl), f, back, data, ttl);
  }
  add("8000 bytes", to, back, bytes(8000, 9), 1);
  rows.push_back(answered("echo: in two buffers",
                          ethernet(0x0800, ip4(to, icmp4(8, 0, 5, bytes(3000, 1)))),
                          answer(0x0800, ip4(back, icmp4(0, 0, 5, bytes(3000, 1))))));
  rows.back().first_segment = 200;
  rows.push_back(dropped("echo: checksum is wrong",
                         ethernet(0x0800, ip4(to, icmp4(8, 0, 5, data, 0x10))), drop_bad_icmp));
  const auto kernel = [&](std::string what, const bytes& frame) {
    rows.push_back(
        left("echo: " + std::move(what), frame, kernel_reason::icmp, drop_unsupported_protocol));
  };
  ip4_fields options = to;
  options.options = bytes(8, 1);
  kernel("with IP options it is the kernel's",
         ethernet(0x0800, ip4(options, icmp4(8, 0, 5, data))));
  kernel("code 1", ethernet(0x0800, ip4(to, icmp4(8, 1, 5, data))));
  kernel("a reply", ethernet(0x0800, ip4(to, icmp4(0, 0, 5, data))));
  kernel("a redirect", ethernet(0x0800, ip4(to, icmp4(5, 1, 5, undelivered4(80, 1)))));
  kernel("a VIP that does not answer",
         ethernet(0x0800, ip4({.protocol = 1}, icmp4(8, 0, 5, data))));
  kernel("a fragmented ping",
         ethernet(0x0800, ip4({.destination = echo_quad, .protocol = 1, .fragment = 0x2000},
                              icmp4(8, 0, 5, data))));

  const ip6_fields to6{.destination = echo6_address, .next = 58, .hop_limit = 3};
  const ip6_fields back6{
      .source = echo6_address, .destination = client6, .next = 58, .hop_limit = 64};
  for (std::uint32_t word = 0x7efe; word <= 0x8001; word += 0x81)
    rows.push_back(answered(
        "echo: ICMPv6 " + std::to_string(word),
        ethernet(0x86dd, ip6(to6, icmp6(client6, echo6_address, 128, 0, word << 16, data))),
        answer(0x86dd, ip6(back6, icmp6(echo6_address, client6, 129, 0, word << 16, data)))));
  rows.push_back(
      dropped("echo: ICMPv6 checksum is wrong",
              ethernet(0x86dd, ip6(to6, icmp6(client6, echo6_address, 128, 0, 1, data, 0x200))),
              drop_bad_icmp));
  kernel("ICMPv6 behind hop-by-hop",
         ethernet(0x86dd, ip6({.destination = echo6_address, .next = 0},
                              extension(58) + icmp6(client6, echo6_address, 128, 0, 1, data))));
  kernel("neighbour solicitation",
         ethernet(0x86dd, ip6({.destination = echo6_address, .next = 58, .hop_limit = 255},
                              icmp6(client6, echo6_address, 135, 0, 0, bytes(24, 0)))));
}

void too_big_rows(std::vector<row>& rows) {
  const auto reply = [](const ip4_fields& about, const bytes& packet, unsigned mtu,
                        const std::vector<tag>& tags = {}) {
    return answer(0x0800,
                  ip4({.source = about.destination,
                       .destination = about.source,
                       .protocol = 1,
                       .ttl = 64,
                       .tos = 0xc0,
                       .id = 0},
                      icmp4(3, 4, mtu, first(packet, 548))),
                  tags);
  };
  const auto add = [&](std::string what, const ip4_fields& f, unsigned port, std::size_t n,
                       unsigned mtu, const std::vector<tag>& tags = {}) {
    const bytes packet = ip4(f, tcp({44000, port, 0x10}, bytes(n, 1)));
    rows.push_back(answered("too big: " + std::move(what), ethernet(0x0800, packet, tags),
                            reply(f, packet, mtu, tags), drop_too_big));
  };
  const ip4_fields small{.destination = small_quad};
  add("ipip, one byte more than the MTU", small, 83, 41, 80);
  add("dsr-l2, one byte more than the MTU", small, 84, 61, 100);
  add("gue, one byte more than the MTU", small, 86, 33, 72);
  add("gre, one byte more than the MTU", small, 87, 37, 76);
  add("dsr-dscp, one byte more than the MTU", small, 88, 61, 100);
  add("ipip, QinQ", small, 83, 300, 80, {{0x88a8, 3}, {0x8100, 4}});
  add("ipip, quoted up to 576 bytes", small, 83, 1400, 80);
  add("ipip, outer total length would pass 65535", small, 85, 65516 - 40, 65515);
  ip4_fields options = small;
  options.options = bytes(12, 1);
  add("ipip, IP options", options, 83, 41, 80);
  const bytes packet = ip4(small, tcp({44000, 83, 0x10}, bytes(2000, 1)));
  rows.push_back(answered("too big: in two buffers, the first is quoted", ethernet(0x0800, packet),
                          reply(small, first(packet, 186), 80), drop_too_big));
  rows.back().first_segment = 200;
  // 4in6 and 6in6 through the 1500 bytes of everybody.
  add("4in6", {}, 80, 1421, 1460);
  const bytes packet6 = ip6({}, tcp({44000, 443, 0x10}, bytes(1420, 1)));
  rows.push_back(
      answered("too big: 6in6", ethernet(0x86dd, packet6),
               answer(0x86dd, ip6({.source = vip6,
                                   .destination = client6,
                                   .next = 58,
                                   .hop_limit = 64,
                                   .traffic_class = 0xc0,
                                   .label = 0},
                                  icmp6(vip6, client6, 2, 0, 1460, first(packet6, 1232)))),
               drop_too_big));

  rows.push_back(dropped("too big: without DF nobody is told",
                         ethernet(0x0800, ip4({.destination = small_quad, .fragment = 0},
                                              tcp({44000, 83}, bytes(41, 1)))),
                         drop_too_big));
  rows.push_back(dropped("too big: no headroom for an answer",
                         ethernet(0x0800, ip4(small, tcp({44000, 83}, bytes(41, 1)))),
                         drop_too_big));
  rows.back().headroom = 26;
}

}  // namespace

std::vector<row> icmp_rows() {
  std::vector<row> rows;
  steered4(rows);
  refused4(rows);
  errors6(rows);
  translated_errors(rows);
  echo(rows);
  too_big_rows(rows);
  return rows;
}

}  // namespace sluice::test
