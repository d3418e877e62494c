// SPDX-License-Identifier: Apache-2.0
// IPv4 packets that go to a backend.
#include "tests/packet/rows.hpp"

namespace sluice::test {
namespace {

// with_ttl() is the same packet one hop on.
ip4_fields hop(ip4_fields f) {
  --f.ttl;
  return f;
}

}  // namespace

std::vector<row> ipv4_rows() {
  std::vector<row> rows;
  const bytes payload(100, 0x5a);
  const auto add = [&](std::string what, const bytes& in, unsigned service, const bytes& out) {
    rows.push_back(sent(std::move(what), in, service, out));
  };
  // An inner packet in, the same in a 4in4 tunnel out.
  const auto in_tunnel = [&](std::string what, const ip4_fields& f, const bytes& l4,
                             unsigned service = web_4in4, const std::vector<tag>& tags = {}) {
    add(std::move(what), padded(ethernet(0x0800, ip4(f, l4), tags), 60), service,
        framed(service, 0x0800, in4(ip4(hop(f), l4), 4, f.tos), tags));
  };

  in_tunnel("4in4: a SYN", {}, tcp({}));
  in_tunnel("4in4: a SYN, padded to 60 bytes, loses its padding", {}, tcp({40001}));
  in_tunnel("4in4: ACK with data", {}, tcp({.source = 40002, .flags = 0x18}, payload));
  in_tunnel("4in4: odd number of bytes", {}, tcp({.source = 40003}, bytes(1, 0xff)));
  in_tunnel("4in4: TCP options", {},
            tcp({.source = 40004, .data_offset = 10, .options = bytes(20, 1)}));
  in_tunnel("4in4: data offset up to the packet's end", {},
            tcp({.source = 40005, .data_offset = 15, .options = bytes(40, 1)}));
  in_tunnel("4in4: DSCP EF and ECT(0) are copied", {.tos = 0xba}, tcp({40006}));
  in_tunnel("4in4: CE is copied", {.tos = 0x03}, tcp({40007}));
  in_tunnel("4in4: TTL 2 arrives with 1", {.ttl = 2}, tcp({40008}));
  in_tunnel("4in4: TTL 255", {.ttl = 255}, tcp({40009}));
  in_tunnel("4in4: without DF the outer has it all the same", {.fragment = 0}, tcp({40010}));
  in_tunnel("4in4: the reserved flag is none of our business", {.fragment = 0x8000}, tcp({40011}));
  in_tunnel("4in4: IPv4 options stay in the inner header", {.options = bytes(8, 1)}, tcp({40012}));
  in_tunnel("4in4: IPv4 options up to IHL 15", {.options = bytes(40, 1)}, tcp({40013}));
  in_tunnel("4in4: inner id 0, checksum carries on decrement", {.id = 0}, tcp({40014}));
  for (unsigned id = 0; id < 0x10000; id += 0x1555)
    in_tunnel("4in4: id " + std::to_string(id), {.id = id}, tcp({40015}));
  // The one's complement edges of the incremental update: headers whose checksum is
  // 0xfeff (result 0, not 0xffff), 0xff00 and around.
  for (const unsigned wanted : {0xfeffu, 0xff00u, 0xfe00u, 0x0000u, 0x0001u, 0x00ffu}) {
    ip4_fields f;
    f.id = 0;
    const bytes zero = ip4(f, tcp({40016}));
    const unsigned sum = static_cast<unsigned>(zero[10]) << 8 | zero[11];
    // checksum = ~(rest + id): solve for id in one's complement.
    std::uint32_t id = (~wanted & 0xffff) + sum;
    id = (id & 0xffff) + (id >> 16);
    f.id = id & 0xffff;
    in_tunnel("4in4: inner checksum " + std::to_string(wanted), f, tcp({40016}));
  }
  in_tunnel("4in4: one VLAN tag stays", {}, tcp({40017}), web_4in4, {{0x8100, 0x2064}});
  in_tunnel("4in4: QinQ stays", {}, tcp({40018}), web_4in4, {{0x88a8, 100}, {0x8100, 200}});
  in_tunnel("4in4: two 802.1Q tags stay", {}, tcp({40019}), web_4in4, {{0x8100, 1}, {0x8100, 2}});
  in_tunnel("4in4: VLAN tag and IPv4 options", {.options = bytes(4, 1)}, tcp({40020}), web_4in4,
            {{0x8100, 7}});
  in_tunnel("4in4: class E source is somebody's", {.source = {240, 0, 0, 1}}, tcp({40021}));
  in_tunnel("4in4: source 223.255.255.255", {.source = {223, 255, 255, 255}}, tcp({40022}));

  in_tunnel("UDP 4in4", {.protocol = 17}, udp({}, payload), dns4);
  in_tunnel("UDP without payload", {.protocol = 17}, udp({40001}), dns4);
  in_tunnel("UDP length less than IP has", {.protocol = 17},
            udp({.source = 40002, .length = 8}, payload), dns4);
  in_tunnel("UDP source port 0", {.protocol = 17}, udp({0}, payload), dns4);

  const ip4_fields range_ip{.destination = {198, 51, 100, 12}};
  in_tunnel("range: its first port", range_ip, tcp({40000, 8000}), range4);
  in_tunnel("range: its last port", range_ip, tcp({40000, 8100}), range4);
  in_tunnel("range: in the middle", range_ip, tcp({40000, 8050}), range4);

  // dsr-l2: only the MAC addresses change, the padding stays.
  const auto dsr = [&](std::string what, const ip4_fields& f, const bytes& l4, unsigned service,
                       const std::vector<tag>& tags = {}) {
    const bytes packet = ip4(f, l4);
    const bytes in = padded(ethernet(0x0800, packet, tags), 60);
    bytes out = in;
    const mac to = next_hop_of(service);
    const mac from = port_mac_of(out_port_of(service));
    std::copy(to.begin(), to.end(), out.begin());
    std::copy(from.begin(), from.end(), out.begin() + 6);
    add(std::move(what), in, service, out);
  };
  const ip4_fields dsr_ip{.destination = {198, 51, 100, 11}};
  dsr("dsr-l2: a SYN", dsr_ip, tcp({40000, 80}), dsr4);
  dsr("dsr-l2: TTL 2 stays 2", {.destination = {198, 51, 100, 11}, .ttl = 2}, tcp({40001, 80}),
      dsr4);
  dsr("dsr-l2: VLAN tag", dsr_ip, tcp({40002, 80}), dsr4, {{0x8100, 5}});
  dsr("dsr-l2: QinQ", dsr_ip, tcp({40003, 80}, payload), dsr4, {{0x88a8, 5}, {0x8100, 6}});
  dsr("dsr-l2: IPv4 options", {.destination = {198, 51, 100, 11}, .options = bytes(12, 1)},
      tcp({40004, 80}), dsr4);
  dsr("dsr-l2: exactly the MTU", {.destination = {198, 51, 100, 13}},
      tcp({40000, 84}, bytes(60, 1)), small_dsr4);
  dsr("range: one port before is any's", range_ip, tcp({40000, 7999}), any4);
  dsr("range: one port behind is any's", range_ip, tcp({40000, 8101}), any4);
  dsr("range: the second range", range_ip, tcp({40000, 9001}), range4_second);
  dsr("any: port 65535", range_ip, tcp({40000, 65535}), any4);
  dsr("any: port 1", range_ip, tcp({40000, 1}), any4);
  dsr("any: port 0", range_ip, tcp({40000, 0}), any4);

  // 4in6.
  const auto in_six = [&](std::string what, const ip4_fields& f, unsigned source,
                          const std::vector<tag>& tags = {}) {
    const bytes l4 = tcp({source, 80}, payload);
    add(std::move(what), ethernet(0x0800, ip4(f, l4), tags), web_4in6,
        framed(web_4in6, 0x86dd, in6(ip4(hop(f), l4), 4, label4(f, source, 80), f.tos), tags));
  };
  in_six("4in6", {}, 40000);
  in_six("4in6: DSCP and ECN", {.tos = 0xfd}, 40001);
  in_six("4in6: QinQ", {}, 40002, {{0x88a8, 100}, {0x8100, 200}});
  in_six("4in6: IPv4 options", {.options = bytes(24, 1)}, 40003);

  // Exactly what fits.
  const ip4_fields small{.destination = {198, 51, 100, 13}};
  in_tunnel("ipip: exactly the MTU", small, tcp({40000, 83}, bytes(40, 1)), small_mtu4);
  in_tunnel("ipip: MTU not known, 65515 bytes of inner packet", small,
            tcp({40000, 85}, bytes(65515 - 40, 1)), no_mtu4);
  rows.push_back(sent("headroom: exactly enough", ethernet(0x0800, ip4({}, tcp({40030}))), web_4in4,
                      framed(web_4in4, 0x0800, in4(ip4(hop({}), tcp({40030})), 4))));
  rows.back().headroom = 20;
  rows.push_back(sent("headroom: none is needed for dsr-l2",
                      ethernet(0x0800, ip4(dsr_ip, tcp({40031, 80}))), dsr4,
                      framed(dsr4, 0x0800, ip4(dsr_ip, tcp({40031, 80})))));
  rows.back().headroom = 0;
  // A chain of buffers: only the headers need to be in the first.
  rows.push_back(sent("chained: only the headers in the first segment",
                      ethernet(0x0800, ip4({}, tcp({40032}, payload))), web_4in4,
                      framed(web_4in4, 0x0800, in4(ip4(hop({}), tcp({40032}, payload)), 4))));
  rows.back().first_segment = 54;
  rows.push_back(sent("chained: padding in the second segment is cut",
                      padded(ethernet(0x0800, ip4({}, tcp({40033}, payload))), 200), web_4in4,
                      framed(web_4in4, 0x0800, in4(ip4(hop({}), tcp({40033}, payload)), 4))));
  rows.back().first_segment = 60;
  return rows;
}

}  // namespace sluice::test
