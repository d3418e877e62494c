// SPDX-License-Identifier: Apache-2.0
// Fragments that can be decided on alone (the others: fragments_test.cpp), jumbo frames and
// frames in several buffers.
#include "tests/packet/rows.hpp"

namespace sluice::test {

using enum abi::counter_id;

namespace {

void first_fragments(std::vector<row>& rows) {
  const auto in4in4 = [&](std::string what, const ip4_fields& f, const bytes& l4, unsigned service,
                          const std::vector<tag>& tags = {}) {
    ip4_fields hop = f;
    --hop.ttl;
    rows.push_back(sent("first fragment: " + std::move(what),
                        padded(ethernet(0x0800, ip4(f, l4), tags), 60), service,
                        framed(service, 0x0800, in4(ip4(hop, l4), 4, f.tos), tags)));
  };
  const ip4_fields more{.protocol = 17, .fragment = 0x2000};
  in4in4("UDP, of a datagram that says 5000 bytes", more, udp({.length = 5000}, bytes(1400, 1)),
         dns4);
  in4in4("UDP header alone", more, udp({.source = 40100, .length = 5000}), dns4);
  in4in4("TCP", {.fragment = 0x2000}, tcp({40100}, bytes(1404, 1)), web_4in4);
  in4in4("TCP header and options, nothing more", {.fragment = 0x2000},
         tcp({.source = 40101, .data_offset = 6, .options = bytes(4, 1)}), web_4in4);
  in4in4("IP options", {.protocol = 17, .fragment = 0x2000, .options = bytes(16, 1)},
         udp({.source = 40102, .length = 5000}, bytes(800, 1)), dns4);
  in4in4("QinQ", more, udp({.source = 40103, .length = 5000}, bytes(800, 1)), dns4,
         {{0x88a8, 1}, {0x8100, 2}});

  const auto in6in6 = [&](std::string what, unsigned next, const bytes& between, const bytes& l4,
                          unsigned source) {
    ip6_fields f{.next = next};
    const std::uint32_t label = label6(f, source, 443);
    ip6_fields hop = f;
    --hop.hop_limit;
    rows.push_back(sent("first fragment: IPv6, " + std::move(what),
                        ethernet(0x86dd, ip6(f, between + l4)), web_6in6,
                        framed(web_6in6, 0x86dd, in6(ip6(hop, between + l4), 41, label))));
  };
  in6in6("TCP", 44, fragment6(6, 1), tcp({40100}, bytes(4, 1)), 40100);
  in6in6("behind hop-by-hop and destination options", 0,
         extension(60) + extension(44, 1) + fragment6(6, 1), tcp({40101}, bytes(12, 1)), 40101);
  in6in6("destination options behind the fragment header", 44, fragment6(60, 1) + extension(6),
         tcp({40102}, bytes(4, 1)), 40102);
  in6in6("AH behind the fragment header", 44, fragment6(51, 1) + bytes{6, 1, 0, 0} + bytes(8, 2),
         tcp({40103}, bytes(8, 1)), 40103);
  in6in6("atomic: a whole packet with the header", 44, fragment6(6, 0), tcp({40104}), 40104);

  ip6_fields d{.next = 44};
  d.destination[15] = 0x11;
  const bytes whole = ip6(d, fragment6(17, 1) + udp({40105, 53, 3000}, bytes(1000, 1)));
  rows.push_back(sent("first fragment: IPv6 UDP by dsr-l2", ethernet(0x86dd, whole), dsr6,
                      framed(dsr6, 0x86dd, whole)));
}

void impossible(std::vector<row>& rows) {
  const auto add4 = [&](std::string what, const ip4_fields& f, const bytes& payload,
                        abi::counter_id reason = drop_fragment) {
    rows.push_back(
        dropped("fragment: " + std::move(what), ethernet(0x0800, ip4(f, payload)), reason));
  };
  add4("offset and length beyond 65535", {.protocol = 17, .fragment = 0x1fff}, bytes(16, 1));
  add4("no payload at all", {.protocol = 17, .fragment = 0x0010}, {});
  add4("first, and no payload at all", {.protocol = 17, .fragment = 0x2000}, {});
  add4("in the middle, 7 bytes", {.protocol = 17, .fragment = 0x2010}, bytes(7, 1));
  add4("TCP at offset 8, over its flags", {.fragment = 0x0001}, bytes(32, 1));
  add4("first, TCP header cut", {.fragment = 0x2000}, bytes(16, 1), drop_truncated);
  add4("first, TCP options cut", {.fragment = 0x2000},
       tcp({.data_offset = 15, .options = bytes(4, 1)}), drop_bad_l4_header);
  add4("first, UDP length 7", {.protocol = 17, .fragment = 0x2000}, udp({.length = 7}),
       drop_bad_l4_header);
  add4("TTL 1", {.protocol = 17, .ttl = 1, .fragment = 0x0010}, bytes(16, 1), drop_ttl_expired);
  add4("bad source", {.source = {127, 0, 0, 1}, .protocol = 17, .fragment = 0x0010}, bytes(16, 1),
       drop_bad_source);
  add4("bad checksum", {.protocol = 17, .fragment = 0x0010, .checksum_error = 1}, bytes(16, 1),
       drop_bad_ipv4_checksum);

  const auto add6 = [&](std::string what, const ip6_fields& f, const bytes& payload,
                        abi::counter_id reason = drop_fragment) {
    rows.push_back(
        dropped("fragment: IPv6, " + std::move(what), ethernet(0x86dd, ip6(f, payload)), reason));
  };
  const ip6_fields f{.next = 44};
  add6("offset and length beyond 65535", f, fragment6(17, 0xfff8) + bytes(16, 1));
  add6("no payload at all", f, fragment6(17, 0x100));
  add6("in the middle, 9 bytes", f, fragment6(17, 0x101) + bytes(9, 1));
  add6("TCP at offset 8", f, fragment6(6, 8) + bytes(32, 1));
  add6("a fragment of a fragment", f, fragment6(44, 1) + fragment6(6, 1) + tcp({}, bytes(4, 0)));
  add6("first, TCP header cut", f, fragment6(6, 1) + bytes(16, 1), drop_truncated);
  add6("first, extension header cut", f, fragment6(60, 1) + bytes{6, 3, 0, 0, 0, 0, 0, 0},
       drop_truncated);
  add6("hop limit 1", {.next = 44, .hop_limit = 1}, fragment6(17, 0x100) + bytes(8, 1),
       drop_ttl_expired);

  const auto kernel = [&](std::string what, const bytes& frame, kernel_reason why,
                          abi::counter_id otherwise) {
    rows.push_back(left("fragment: " + std::move(what), frame, why, otherwise));
  };
  kernel(
      "UDP to an address with TCP services only",
      ethernet(0x0800, ip4({.destination = {198, 51, 100, 11}, .protocol = 17, .fragment = 0x0010},
                           bytes(16, 1))),
      kernel_reason::no_service_port, drop_no_service_port);
  kernel("ICMP, a later one",
         ethernet(0x0800, ip4({.protocol = 1, .fragment = 0x0010}, bytes(16, 1))),
         kernel_reason::icmp, drop_unsupported_protocol);
  kernel("ICMPv6, a later one",
         ethernet(0x86dd, ip6({.next = 44}, fragment6(58, 0x100) + bytes(16, 1))),
         kernel_reason::icmp, drop_unsupported_protocol);
  kernel("GRE, a first one",
         ethernet(0x0800, ip4({.protocol = 47, .fragment = 0x2000}, bytes(16, 1))),
         kernel_reason::other_protocol, drop_unsupported_protocol);
  kernel(
      "to the host",
      ethernet(0x0800, ip4({.destination = {198, 51, 100, 99}, .protocol = 17, .fragment = 0x0010},
                           bytes(16, 1))),
      kernel_reason::not_for_a_vip, drop_not_for_us);
}

// Frames longer than a buffer, and than an Ethernet frame used to be. The backend of no_mtu4
// is one whose link is not known: 65535 bytes.
void long_frames(std::vector<row>& rows) {
  const auto add = [&](std::string what, std::size_t data, std::size_t first_segment,
                       const bytes& options = {}, const std::vector<tag>& tags = {}) {
    const ip4_fields f{.destination = {198, 51, 100, 13}, .options = options};
    ip4_fields hop = f;
    --hop.ttl;
    const bytes l4 = tcp({static_cast<unsigned>(41000 + rows.size()), 85, 0x18}, bytes(data, 7));
    rows.push_back(sent(std::move(what), ethernet(0x0800, ip4(f, l4), tags), no_mtu4,
                        framed(no_mtu4, 0x0800, in4(ip4(hop, l4), 4), tags)));
    rows.back().first_segment = first_segment;
  };
  add("jumbo: 9000 bytes of IP in one buffer", 8960, SIZE_MAX);
  add("jumbo: 9000 bytes in buffers of 2048", 8960, 2048);
  add("jumbo: 9000 bytes, QinQ, IP options, buffers of 128", 8920, 128, bytes(40, 1),
      {{0x88a8, 1}, {0x8100, 2}});
  add("jumbo: 16000 bytes in buffers of 2048", 16000, 2048);
  const ip6_fields f;
  ip6_fields hop = f;
  --hop.hop_limit;
  const bytes l4 = tcp({41500, 443, 0x18}, bytes(1200, 7));
  rows.push_back(sent("segmented: IPv6, only the headers in the first buffer",
                      ethernet(0x86dd, ip6(f, l4)), web_6in6,
                      framed(web_6in6, 0x86dd, in6(ip6(hop, l4), 41, label6(f, 41500, 443)))));
  rows.back().first_segment = 14 + 40 + 20;
  const bytes deep = extension(60, 7) + extension(6, 7) + tcp({41501, 443});
  const ip6_fields options{.next = 60};
  ip6_fields options_hop = options;
  --options_hop.hop_limit;
  rows.push_back(
      sent("segmented: IPv6, two extension headers of 64 bytes",
           ethernet(0x86dd, ip6(options, deep)), web_6in6,
           framed(web_6in6, 0x86dd, in6(ip6(options_hop, deep), 41, label6(options, 41501, 443)))));
  rows.back().first_segment = 14 + 40 + 128 + 20;
  rows.push_back(dropped("segmented: IPv6 extension headers reach into the second buffer",
                         ethernet(0x86dd, ip6(options, deep)), drop_truncated));
  rows.back().first_segment = 14 + 40 + 100;
}

}  // namespace

std::vector<row> fragment_rows() {
  std::vector<row> rows;
  first_fragments(rows);
  impossible(rows);
  long_frames(rows);
  return rows;
}

}  // namespace sluice::test
