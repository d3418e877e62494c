// SPDX-License-Identifier: Apache-2.0
// gue, gre and dsr-dscp: packets that go to a backend, and those that are too big for it.
#include <algorithm>

#include "tests/packet/rows.hpp"

namespace sluice::test {
namespace {

constexpr hexadec vip6_at(std::uint8_t last) {
  hexadec a = vip6;
  a[15] = last;
  return a;
}

template <class Fields>
Fields hop(Fields f) {
  if constexpr (requires { f.ttl; }) {
    --f.ttl;
  } else {
    --f.hop_limit;
  }
  return f;
}

// gue_header() is UDP without a checksum; the port by the documented rule: 49152 and the low
// 14 bits of the flow hash.
bytes gue_header(std::uint32_t label, const bytes& inner) {
  bytes b;
  put16(b, 0xc000 | (label & 0x3fff));
  put16(b, 6080);
  put16(b, static_cast<unsigned>(inner.size() + 8));
  put16(b, 0);
  return b + inner;
}
bytes gre_header(unsigned type, const bytes& inner) {
  bytes b;
  put16(b, 0);
  put16(b, type);
  return b + inner;
}

void tunnels(std::vector<row>& rows) {
  const bytes payload(100, 0x5a);
  const auto gue4 = [&](std::string what, ip4_fields f, const bytes& l4, unsigned service,
                        unsigned source, unsigned port, const std::vector<tag>& tags = {}) {
    f.destination = {198, 51, 100, 14};
    const bytes inner = ip4(hop(f), l4);
    const std::uint32_t label = label4(f, source, port);
    const bytes out =
        service == gue_4in6
            ? framed(service, 0x86dd, in6(gue_header(label, inner), 17, label, f.tos), tags)
            : framed(service, 0x0800, in4(gue_header(label, inner), 17, f.tos), tags);
    rows.push_back(
        sent(std::move(what), padded(ethernet(0x0800, ip4(f, l4), tags), 60), service, out));
  };
  gue4("gue 4in4: a SYN", {}, tcp({}), gue_4in4, 40000, 443);
  gue4("gue 4in4: data, another source port", {}, tcp({.source = 40001, .flags = 0x18}, payload),
       gue_4in4, 40001, 443);
  gue4("gue 4in4: odd length", {}, tcp({.source = 40002}, bytes(7, 1)), gue_4in4, 40002, 443);
  gue4("gue 4in4: DSCP and ECN are copied", {.tos = 0xb9}, tcp({40003}), gue_4in4, 40003, 443);
  gue4("gue 4in4: QinQ stays", {}, tcp({40004}), gue_4in4, 40004, 443,
       {{0x88a8, 100}, {0x8100, 200}});
  gue4("gue 4in4: IPv4 options stay inside", {.options = bytes(8, 1)}, tcp({40005}), gue_4in4,
       40005, 443);
  gue4("gue 4in6", {.tos = 0x41}, tcp({40000, 80}), gue_4in6, 40000, 80);
  gue4("gue 4in6: one VLAN tag", {}, tcp({40001, 80}, payload), gue_4in6, 40001, 80, {{0x8100, 7}});
  gue4("gue 4in4: UDP", {.protocol = 17}, udp({}, payload), gue_udp4, 40000, 53);
  gue4("gue 4in4: UDP without payload", {.protocol = 17}, udp({40001}), gue_udp4, 40001, 53);

  const auto gue6 = [&](std::string what, ip6_fields f, const bytes& l4, unsigned service,
                        unsigned source, unsigned port, const bytes& extensions = {},
                        unsigned next = 6) {
    f.destination = vip6_at(0x14);
    f.next = next;
    const bytes inner = ip6(hop(f), extensions + l4);
    const std::uint32_t label = label6(f, source, port);
    const bytes out =
        service == gue_6in6
            ? framed(service, 0x86dd, in6(gue_header(label, inner), 17, label, f.traffic_class))
            : framed(service, 0x0800, in4(gue_header(label, inner), 17, f.traffic_class));
    rows.push_back(sent(std::move(what), ethernet(0x86dd, ip6(f, extensions + l4)), service, out));
  };
  gue6("gue 6in6: a SYN", {}, tcp({}), gue_6in6, 40000, 443);
  gue6("gue 6in6: traffic class is copied", {.traffic_class = 0xba}, tcp({40001}), gue_6in6, 40001,
       443);
  gue6("gue 6in6: extension headers stay inside", {}, tcp({40002}), gue_6in6, 40002, 443,
       extension(60) + extension(6, 1), 0);
  gue6("gue 6in4", {.traffic_class = 0x2}, tcp({40000, 80}, payload), gue_6in4, 40000, 80);

  const auto gre4 = [&](std::string what, ip4_fields f, const bytes& l4, unsigned service,
                        unsigned source, unsigned port, const std::vector<tag>& tags = {}) {
    f.destination = {198, 51, 100, 14};
    const bytes inner = gre_header(0x0800, ip4(hop(f), l4));
    const bytes out =
        service == gre_4in6
            ? framed(service, 0x86dd, in6(inner, 47, label4(f, source, port), f.tos), tags)
            : framed(service, 0x0800, in4(inner, 47, f.tos), tags);
    rows.push_back(
        sent(std::move(what), padded(ethernet(0x0800, ip4(f, l4), tags), 60), service, out));
  };
  gre4("gre 4in4: a SYN", {}, tcp({40000, 444}), gre_4in4, 40000, 444);
  gre4("gre 4in4: data", {.tos = 3},
       tcp({.source = 40001, .destination = 444, .flags = 0x18}, payload), gre_4in4, 40001, 444);
  gre4("gre 4in4: VLAN tag", {}, tcp({40002, 444}), gre_4in4, 40002, 444, {{0x8100, 7}});
  gre4("gre 4in6", {}, tcp({40000, 81}, payload), gre_4in6, 40000, 81);

  const auto gre6 = [&](std::string what, ip6_fields f, const bytes& l4, unsigned service,
                        unsigned source, unsigned port) {
    f.destination = vip6_at(0x14);
    const bytes inner = gre_header(0x86dd, ip6(hop(f), l4));
    const bytes out =
        service == gre_6in6
            ? framed(service, 0x86dd, in6(inner, 47, label6(f, source, port), f.traffic_class))
            : framed(service, 0x0800, in4(inner, 47, f.traffic_class));
    rows.push_back(sent(std::move(what), ethernet(0x86dd, ip6(f, l4)), service, out));
  };
  gre6("gre 6in6", {}, tcp({40000, 444}), gre_6in6, 40000, 444);
  gre6("gre 6in6: traffic class", {.traffic_class = 0xff}, tcp({40001, 444}, payload), gre_6in6,
       40001, 444);
  gre6("gre 6in4", {}, tcp({40000, 81}), gre_6in4, 40000, 81);
}

void marked(std::vector<row>& rows) {
  const bytes payload(101, 0xa5);
  const auto in4 = [&](std::string what, ip4_fields f, const bytes& l4, unsigned service,
                       unsigned dscp, bool with_sum = true, const std::vector<tag>& tags = {}) {
    f.destination = {198, 51, 100, 15};
    ip4_fields to = hop(f);
    to.destination = backend4;
    to.tos = dscp << 2 | (f.tos & 3);
    const auto whole = [&](const bytes& b) { return with_sum ? summed(b) : b; };
    rows.push_back(sent(std::move(what), ethernet(0x0800, whole(ip4(f, l4)), tags), service,
                        framed(service, 0x0800, whole(ip4(to, l4)), tags)));
  };
  in4("dsr-dscp: a SYN", {}, tcp({40000, 80}), dscp_tcp4, 10);
  in4("dsr-dscp: data, ECN stays", {.tos = 0xff},
      tcp({.source = 40001, .destination = 80, .flags = 0x18}, payload), dscp_tcp4, 10);
  in4("dsr-dscp: TTL 2 arrives with 1", {.ttl = 2}, tcp({40002, 80}), dscp_tcp4, 10);
  in4("dsr-dscp: IPv4 options", {.options = bytes(12, 1)}, tcp({40003, 80}), dscp_tcp4, 10);
  in4("dsr-dscp: TCP options", {},
      tcp({.source = 40004, .destination = 80, .data_offset = 8, .options = bytes(12, 1)}),
      dscp_tcp4, 10);
  in4("dsr-dscp: VLAN tag", {}, tcp({40005, 80}), dscp_tcp4, 10, true, {{0x8100, 7}});
  in4("dsr-dscp: UDP", {.protocol = 17}, udp({}, payload), dscp_udp4, 63);
  for (unsigned i = 0; i < 48; ++i)
    in4("dsr-dscp: UDP, sums of all kinds " + std::to_string(i), {.protocol = 17, .id = 0x1111 * i},
        udp({40100 + i}, bytes(i, static_cast<std::uint8_t>(i * 37))), dscp_udp4, 63);
  // A checksum of 0 says that there is none.
  bytes none = udp({40001}, payload);
  none[6] = none[7] = 0;
  in4("dsr-dscp: UDP without a checksum", {.protocol = 17}, none, dscp_udp4, 63, false);
  {
    // The sum after the change is 0, which UDP writes as 0xffff: the payload's word makes it so.
    ip4_fields to{.destination = backend4, .protocol = 17, .ttl = 60, .tos = 63 << 2};
    bytes l4 = udp({40002}, bytes(2, 0));
    const bytes zero = summed(ip4(to, l4));
    l4[8] = zero[26];
    l4[9] = zero[27];
    in4("dsr-dscp: UDP checksum that becomes 0", {.protocol = 17}, l4, dscp_udp4, 63);
  }
  rows.push_back(sent(
      "dsr-dscp: padding stays",
      padded(ethernet(0x0800, summed(ip4({.destination = {198, 51, 100, 15}}, tcp({40006, 80})))),
             60),
      dscp_tcp4,
      padded(framed(dscp_tcp4, 0x0800,
                    summed(ip4({.destination = backend4, .ttl = 60, .tos = 40}, tcp({40006, 80})))),
             60)));

  const auto in6 = [&](std::string what, ip6_fields f, const bytes& l4, unsigned service,
                       unsigned dscp, const bytes& extensions = {}) {
    f.destination = vip6_at(0x15);
    ip6_fields to = hop(f);
    to.destination = backend6;
    to.traffic_class = dscp << 2 | (f.traffic_class & 3);
    rows.push_back(sent(std::move(what), ethernet(0x86dd, summed(ip6(f, extensions + l4))), service,
                        framed(service, 0x86dd, summed(ip6(to, extensions + l4)))));
  };
  in6("dsr-dscp: IPv6, a SYN", {}, tcp({40000, 80}), dscp_tcp6, 10);
  in6("dsr-dscp: IPv6, ECN and flow label stay", {.traffic_class = 0xff},
      tcp({.source = 40001, .destination = 80, .flags = 0x18}, payload), dscp_tcp6, 10);
  in6("dsr-dscp: IPv6, extension headers", {.next = 0}, tcp({40002, 80}), dscp_tcp6, 10,
      extension(60) + extension(6));
  in6("dsr-dscp: IPv6, UDP", {.next = 17}, udp({}, payload), dscp_udp6, 63);
}

void too_big(std::vector<row>& rows) {
  const auto add = [&](std::string what, unsigned port, std::size_t data, unsigned service,
                       const bytes& out) {
    const ip4_fields f{.destination = {198, 51, 100, 13}};
    bytes in = ethernet(0x0800, summed(ip4(f, tcp({40000, port}, bytes(data, 1)))));
    rows.push_back(sent(std::move(what), in, service, out));
  };
  const auto inner = [](unsigned port, std::size_t data) {
    return summed(
        ip4({.destination = {198, 51, 100, 13}, .ttl = 60}, tcp({40000, port}, bytes(data, 1))));
  };
  // MTU 100: 40 bytes of headers, and 28 (gue), 24 (gre) or none (dsr-dscp) of ours. One
  // byte more: rows_icmp.cpp.
  const ip4_fields f{.destination = {198, 51, 100, 13}};
  add("gue: up to the MTU", 86, 32, small_gue4,
      framed(small_gue4, 0x0800, in4(gue_header(label4(f, 40000, 86), inner(86, 32)), 17)));
  add("gre: up to the MTU", 87, 36, small_gre4,
      framed(small_gre4, 0x0800, in4(gre_header(0x0800, inner(87, 36)), 47)));
  add("dsr-dscp: up to the MTU", 88, 60, small_dscp4,
      framed(small_dscp4, 0x0800,
             summed(ip4({.destination = backend4, .ttl = 60, .tos = 4},
                        tcp({40000, 88}, bytes(60, 1))))));

  const auto room = [&](std::string what, std::uint16_t headroom, unsigned port, bool enough) {
    const ip4_fields to{.destination = {198, 51, 100, 14}};
    const bytes in = ethernet(0x0800, ip4(to, tcp({40000, port})));
    const bytes out = framed(
        port == 443 ? gue_4in4 : gre_4in4, 0x0800,
        port == 443
            ? test::in4(gue_header(label4(to, 40000, port), ip4(hop(to), tcp({40000, port}))), 17)
            : test::in4(gre_header(0x0800, ip4(hop(to), tcp({40000, port}))), 47));
    row r = enough ? sent(std::move(what), in, port == 443 ? gue_4in4 : gre_4in4, out)
                   : dropped(std::move(what), in, abi::counter_id::drop_no_headroom);
    r.headroom = headroom;
    rows.push_back(std::move(r));
  };
  room("gue: headroom to the byte", 28, 443, true);
  room("gue: too little headroom", 26, 443, false);
  room("gre: headroom to the byte", 24, 444, true);
  room("gre: too little headroom", 22, 444, false);
}

void translated(std::vector<row>& rows) {
  const bytes payload(33, 0x5a);
  const auto add4 = [&](std::string what, ip4_fields f, bytes l4, unsigned service, unsigned port,
                        const std::vector<tag>& tags = {}) {
    f.destination = {198, 51, 100, 16};
    const bytes in = ethernet(0x0800, summed(ip4(f, l4)), tags);
    f.destination = backend4;
    l4[2] = static_cast<std::uint8_t>(port >> 8);
    l4[3] = static_cast<std::uint8_t>(port);
    rows.push_back(
        sent(std::move(what), in, service, framed(service, 0x0800, summed(ip4(hop(f), l4)), tags)));
  };
  add4("nat: a SYN", {}, tcp({40000, 80}), nat_tcp4, 8080);
  add4("nat: the next packet", {},
       tcp({.source = 40000, .destination = 80, .flags = 0x18}, payload), nat_tcp4, 8080);
  add4("nat: IPv4 options", {.options = bytes(12, 1)}, tcp({40001, 80}, payload), nat_tcp4, 8080);
  add4("nat: VLAN tags", {}, tcp({40002, 80}), nat_tcp4, 8080, {{0x88a8, 1}, {0x8100, 7}});
  add4("nat: UDP, the port stays", {.protocol = 17}, udp({40000, 53}, payload), nat_udp4, 53);
  const auto add6 = [&](std::string what, ip6_fields f, bytes l4, const bytes& extensions) {
    f.destination = vip6_at(0x16);
    const bytes in = ethernet(0x86dd, summed(ip6(f, extensions + l4)));
    f.destination = backend6;
    l4[2] = 8080 >> 8;
    l4[3] = 8080 & 0xff;
    rows.push_back(sent(std::move(what), in, nat_tcp6,
                        framed(nat_tcp6, 0x86dd, summed(ip6(hop(f), extensions + l4)))));
  };
  add6("nat: IPv6", {}, tcp({40000, 80}, payload), {});
  add6("nat: IPv6, extension headers", {.next = 0}, tcp({40001, 80}), extension(60) + extension(6));
}

}  // namespace

std::vector<row> modes_rows() {
  std::vector<row> rows;
  tunnels(rows);
  marked(rows);
  too_big(rows);
  translated(rows);
  return rows;
}

}  // namespace sluice::test
