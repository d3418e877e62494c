// SPDX-License-Identifier: Apache-2.0
// IPv6 packets that go to a backend.
#include "tests/packet/rows.hpp"

namespace sluice::test {

std::vector<row> ipv6_rows() {
  std::vector<row> rows;
  const bytes payload(33, 0xa5);
  const auto hop = [](ip6_fields f) {
    --f.hop_limit;
    return f;
  };
  // `rest` is everything behind the IPv6 header; source is the TCP source port.
  const auto six_in_six = [&](std::string what, const ip6_fields& f, const bytes& rest,
                              unsigned source, const std::vector<tag>& tags = {}) {
    const bytes outer = in6(ip6(hop(f), rest), 41, label6(f, source, 443), f.traffic_class);
    rows.push_back(sent(std::move(what), ethernet(0x86dd, ip6(f, rest), tags), web_6in6,
                        framed(web_6in6, 0x86dd, outer, tags)));
  };
  six_in_six("6in6: a SYN", {}, tcp({40000, 443}), 40000);
  six_in_six("6in6: data", {}, tcp({40001, 443, 0x18}, payload), 40001);
  six_in_six("6in6: traffic class", {.traffic_class = 0xb9}, tcp({40002, 443}), 40002);
  six_in_six("6in6: hop limit 2 arrives with 1", {.hop_limit = 2}, tcp({40003, 443}), 40003);
  six_in_six("6in6: VLAN tag", {}, tcp({40004, 443}), 40004, {{0x8100, 3}});
  six_in_six("6in6: QinQ", {}, tcp({40005, 443}), 40005, {{0x88a8, 100}, {0x8100, 200}});
  six_in_six("6in6: hop-by-hop", {.next = 0}, extension(6) + tcp({40006, 443}), 40006);
  six_in_six("6in6: destination options of 16 bytes", {.next = 60},
             extension(6, 1) + tcp({40007, 443}), 40007);
  six_in_six("6in6: routing header that is done", {.next = 43}, extension(6) + tcp({40008, 443}),
             40008);
  six_in_six("6in6: hop-by-hop, destination, routing, destination", {.next = 0},
             extension(60) + extension(43) + extension(60) + extension(6) + tcp({40009, 443}),
             40009);
  bytes eight;
  for (int i = 0; i < 7; ++i) append(eight, extension(60));
  append(eight, extension(6));
  six_in_six("6in6: eight extension headers", {.next = 60}, eight + tcp({40010, 443}), 40010);
  six_in_six("6in6: atomic fragment (RFC 6946)", {.next = 44}, fragment6(6, 0) + tcp({40011, 443}),
             40011);
  six_in_six("6in6: reserved bits of an atomic fragment", {.next = 44},
             fragment6(6, 6) + tcp({40012, 443}), 40012);
  // AH counts in words of four bytes: 4 means 24 bytes.
  six_in_six("6in6: authentication header", {.next = 51},
             padded(bytes{6, 4, 0, 0}, 24) + tcp({40013, 443}), 40013);

  const auto six_in_four = [&](std::string what, const ip6_fields& f, unsigned source,
                               const std::vector<tag>& tags = {}) {
    const bytes l4 = tcp({source, 80}, payload);
    rows.push_back(sent(std::move(what), ethernet(0x86dd, ip6(f, l4), tags), web_6in4,
                        framed(web_6in4, 0x0800, in4(ip6(hop(f), l4), 41, f.traffic_class), tags)));
  };
  six_in_four("6in4", {}, 40000);
  six_in_four("6in4: traffic class", {.traffic_class = 0x23}, 40001);
  six_in_four("6in4: VLAN tag", {}, 40002, {{0x8100, 3}});

  hexadec dsr_vip = vip6;
  dsr_vip[15] = 0x11;
  const auto dsr = [&](std::string what, unsigned port, unsigned hop_limit) {
    const bytes packet = ip6({.destination = dsr_vip, .next = 17, .hop_limit = hop_limit},
                             udp({40000, port}, payload));
    rows.push_back(
        sent(std::move(what), ethernet(0x86dd, packet), dsr6, framed(dsr6, 0x86dd, packet)));
  };
  dsr("dsr-l2: UDP to any port over IPv6", 443, 60);
  dsr("dsr-l2: UDP to port 53 over IPv6", 53, 2);

  // Bytes behind the IPv6 packet.
  rows.push_back(sent(
      "6in6: trailing bytes are cut", padded(ethernet(0x86dd, ip6({}, tcp({40020, 443}))), 90),
      web_6in6,
      framed(web_6in6, 0x86dd, in6(ip6(hop({}), tcp({40020, 443})), 41, label6({}, 40020, 443)))));
  rows.push_back(sent(
      "6in6: headroom exactly enough", ethernet(0x86dd, ip6({}, tcp({40021, 443}))), web_6in6,
      framed(web_6in6, 0x86dd, in6(ip6(hop({}), tcp({40021, 443})), 41, label6({}, 40021, 443)))));
  rows.back().headroom = 40;
  return rows;
}

}  // namespace sluice::test
