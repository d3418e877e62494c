// SPDX-License-Identifier: Apache-2.0
// Packets that are dropped, one row or more for every reason, and packets that are left
// to the kernel.
#include "tests/packet/rows.hpp"

namespace sluice::test {

using enum abi::counter_id;

namespace {

void ipv4_refused(std::vector<row>& rows) {
  const auto add = [&](std::string what, const bytes& packet, abi::counter_id reason) {
    rows.push_back(dropped("IPv4 " + std::move(what), ethernet(0x0800, packet), reason));
  };
  const bytes syn = tcp({});
  add("version 6 under type 0x0800", ip4({.version = 6}, syn), drop_bad_ipv4_header);
  add("version 0", ip4({.version = 0}, syn), drop_bad_ipv4_header);
  add("IHL 4", ip4({.ihl = 4}, syn), drop_bad_ipv4_header);
  add("IHL 0", ip4({.ihl = 0}, syn), drop_bad_ipv4_header);
  add("IHL beyond the frame", ip4({.ihl = 15}, bytes(8, 0)), drop_truncated);
  add("IHL beyond the total length", ip4({.ihl = 8, .total_length = 28}, syn),
      drop_bad_ipv4_header);
  add("total length 0", ip4({.total_length = 0}, syn), drop_bad_ipv4_header);
  add("total length 19", ip4({.total_length = 19}, syn), drop_bad_ipv4_header);
  add("total length one more than the frame has", ip4({.total_length = 41}, syn), drop_truncated);
  add("total length 65535", ip4({.total_length = 65535}, syn), drop_truncated);
  add("checksum wrong by one bit", ip4({.checksum_error = 1}, syn), drop_bad_ipv4_checksum);
  add("checksum with its bytes swapped", ip4({.checksum_error = 0x8000}, syn),
      drop_bad_ipv4_checksum);
  add("checksum wrong, with options", ip4({.options = bytes(4, 1), .checksum_error = 4}, syn),
      drop_bad_ipv4_checksum);
  add("TTL 1", ip4({.ttl = 1}, syn), drop_ttl_expired);
  add("TTL 0", ip4({.ttl = 0}, syn), drop_ttl_expired);
  add("source 0.0.0.0", ip4({.source = {0, 0, 0, 0}}, syn), drop_bad_source);
  add("source 0.1.2.3", ip4({.source = {0, 1, 2, 3}}, syn), drop_bad_source);
  add("source 127.0.0.1", ip4({.source = {127, 0, 0, 1}}, syn), drop_bad_source);
  add("source 224.0.0.1", ip4({.source = {224, 0, 0, 1}}, syn), drop_bad_source);
  add("source 239.255.255.255", ip4({.source = {239, 255, 255, 255}}, syn), drop_bad_source);
  add("source broadcast", ip4({.source = {255, 255, 255, 255}}, syn), drop_bad_source);
  add("source is the VIP", ip4({.source = {198, 51, 100, 10}}, syn), drop_bad_source);
  add("first fragment", ip4({.fragment = 0x2000}, syn), drop_fragment);
  add("middle fragment", ip4({.fragment = 0x2010}, syn), drop_fragment);
  add("TCP header cut by the total length", ip4({.total_length = 39}, syn), drop_truncated);
  add("TCP header of 19 bytes", ip4({}, bytes(syn.begin(), syn.end() - 1)), drop_truncated);
  add("TCP data offset 4", ip4({}, tcp({.data_offset = 4})), drop_bad_l4_header);
  add("TCP data offset 0", ip4({}, tcp({.data_offset = 0})), drop_bad_l4_header);
  add("TCP data offset beyond the packet", ip4({}, tcp({.data_offset = 6})), drop_bad_l4_header);
  const auto add_udp = [&](std::string what, std::optional<unsigned> length, std::size_t n,
                           abi::counter_id reason) {
    add("UDP " + std::move(what), ip4({.protocol = 17}, udp({.length = length}, bytes(n, 0))),
        reason);
  };
  add_udp("length 0", 0, 32, drop_bad_l4_header);
  add_udp("length 7", 7, 32, drop_bad_l4_header);
  add_udp("length one more than IP has", 41, 32, drop_bad_l4_header);
  add_udp("length one more than IP has, padding behind", 9, 0, drop_bad_l4_header);
  add("UDP header of 7 bytes", ip4({.protocol = 17}, bytes(7, 1)), drop_truncated);
  // Faults are found behind tags and options as well.
  rows.push_back(dropped("IPv4 TTL 1 behind QinQ",
                         ethernet(0x0800, ip4({.ttl = 1}, syn), {{0x88a8, 1}, {0x8100, 2}}),
                         drop_ttl_expired));
}

void ipv6_refused(std::vector<row>& rows) {
  const auto add = [&](std::string what, const bytes& packet, abi::counter_id reason) {
    rows.push_back(dropped("IPv6 " + std::move(what), ethernet(0x86dd, packet), reason));
  };
  const bytes syn = tcp({});
  hexadec mapped{};
  mapped[10] = mapped[11] = 0xff;
  mapped[12] = 198, mapped[13] = 51, mapped[14] = 100, mapped[15] = 10;
  hexadec loopback{};
  loopback[15] = 1;
  hexadec multicast = client6;
  multicast[0] = 0xff;
  add("version 4 under type 0x86dd", ip6({.version = 4}, syn), drop_bad_ipv6_header);
  add("payload length one more than the frame has", ip6({.payload_length = 21}, syn),
      drop_truncated);
  add("payload length 0", ip6({.payload_length = 0}, syn), drop_truncated);
  add("jumbogram (payload length 0 and hop-by-hop)",
      ip6({.next = 0, .payload_length = 0}, extension(6) + syn), drop_truncated);
  add("hop limit 1", ip6({.hop_limit = 1}, syn), drop_ttl_expired);
  add("hop limit 0", ip6({.hop_limit = 0}, syn), drop_ttl_expired);
  add("source ::", ip6({.source = {}}, syn), drop_bad_source);
  add("source ::1", ip6({.source = loopback}, syn), drop_bad_source);
  add("source multicast", ip6({.source = multicast}, syn), drop_bad_source);
  add("source is the VIP", ip6({.source = vip6}, syn), drop_bad_source);
  add("source is a mapped IPv4 address", ip6({.source = mapped}, syn), drop_bad_source);
  add("destination is a VIP's mapped IPv4 address", ip6({.destination = mapped}, syn),
      drop_bad_ipv6_header);
  add("first fragment", ip6({.next = 44}, fragment6(6, 1) + syn), drop_fragment);
  add("fragment header cut", ip6({.next = 44}, bytes(7, 0)), drop_truncated);
  add("hop-by-hop that is not first", ip6({.next = 60}, extension(0) + extension(6) + syn),
      drop_bad_ipv6_header);
  add("routing header with segments left", ip6({.next = 43}, extension(6, 0, 1) + syn),
      drop_bad_ipv6_header);
  bytes nine;
  for (int i = 0; i < 8; ++i) append(nine, extension(60));
  append(nine, extension(6));
  add("nine extension headers", ip6({.next = 60}, nine + syn), drop_bad_ipv6_header);
  add("extension header beyond the packet", ip6({.next = 60}, bytes{6, 9, 1, 0, 0, 0, 0, 0} + syn),
      drop_truncated);
  add("extension header cut", ip6({.next = 60}, bytes(3, 6)), drop_truncated);
  add("extension header up to the end, then nothing", ip6({.next = 60}, extension(6)),
      drop_truncated);
  add("TCP header cut by the payload length", ip6({.payload_length = 19}, syn), drop_truncated);
  add("TCP data offset 4", ip6({}, tcp({.data_offset = 4})), drop_bad_l4_header);
  add("UDP length 0", ip6({.next = 17}, udp({.length = 0}, bytes(9, 0))), drop_bad_l4_header);
}

void path_refused(std::vector<row>& rows) {
  const auto add = [&](std::string what, unsigned port, std::size_t n, abi::counter_id reason) {
    rows.push_back(dropped(
        std::move(what),
        ethernet(0x0800, ip4({.destination = {198, 51, 100, 13}}, tcp({40000, port}, bytes(n, 1)))),
        reason));
  };
  add("service without a backend", 80, 0, drop_no_backend);
  add("next hop not known", 81, 0, drop_no_next_hop);
  add("out_port that is none", 82, 0, drop_no_next_hop);
  rows.push_back(dropped("4in4: one byte of headroom too few", ethernet(0x0800, ip4({}, tcp({}))),
                         drop_no_headroom));
  rows.back().headroom = 19;
  rows.push_back(dropped("6in6: one byte of headroom too few", ethernet(0x86dd, ip6({}, tcp({}))),
                         drop_no_headroom));
  rows.back().headroom = 39;
  rows.push_back(dropped("chained: the TCP header is not contiguous",
                         ethernet(0x0800, ip4({}, tcp({}))), drop_truncated));
  rows.back().first_segment = 53;
  const bytes whole = ethernet(0x0800, ip4({}, tcp({})));
  rows.push_back(dropped("no bytes at all", {}, drop_truncated));
  rows.push_back(dropped("13 bytes", bytes(whole.begin(), whole.begin() + 13), drop_truncated));
  rows.push_back(dropped("Ethernet and half an IPv4 header",
                         bytes(whole.begin(), whole.begin() + 33), drop_truncated));
  rows.push_back(dropped("VLAN tag cut", bytes{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0},
                         drop_truncated));
}

}  // namespace

std::vector<row> refused_rows() {
  std::vector<row> rows;
  ipv4_refused(rows);
  ipv6_refused(rows);
  path_refused(rows);
  return rows;
}

std::vector<row> kernel_rows() {
  std::vector<row> rows;
  const auto add = [&](std::string what, const bytes& frame, kernel_reason why,
                       abi::counter_id otherwise) {
    rows.push_back(left(std::move(what), frame, why, otherwise));
  };
  const bytes syn = tcp({});
  const quad host{198, 51, 100, 99};
  add("ARP", ethernet(0x0806, bytes(28, 1)), kernel_reason::not_ip, drop_not_for_us);
  add("LLDP, to a group address", ethernet(0x88cc, bytes(46, 1), {}, {1, 0x80, 0xc2, 0, 0, 0xe}),
      kernel_reason::not_ip, drop_not_for_us);
  add("802.3 length field", ethernet(46, bytes(46, 1)), kernel_reason::not_ip, drop_not_for_us);
  add("three VLAN tags", ethernet(0x0800, ip4({}, syn), {{0x88a8, 1}, {0x8100, 2}, {0x8100, 3}}),
      kernel_reason::not_ip, drop_not_for_us);
  add("ARP behind a VLAN tag", ethernet(0x0806, bytes(28, 1), {{0x8100, 3}}), kernel_reason::not_ip,
      drop_not_for_us);
  add("IPv4 to the host", ethernet(0x0800, ip4({.destination = host}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("IPv6 to the host", ethernet(0x86dd, ip6({.destination = client6, .hop_limit = 1}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("to the VIP in a broadcast frame",
      ethernet(0x0800, ip4({}, syn), {}, {255, 255, 255, 255, 255, 255}),
      kernel_reason::group_frame, drop_not_for_us);
  add("neighbour solicitation in a multicast frame",
      ethernet(0x86dd, ip6({.next = 58}, bytes(24, 0)), {}, {0x33, 0x33, 0xff, 0, 0, 0x10}),
      kernel_reason::group_frame, drop_not_for_us);
  // What is wrong with a packet for the host is the host's business.
  add("TTL 1 to the host", ethernet(0x0800, ip4({.destination = host, .ttl = 1}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("bad checksum to the host",
      ethernet(0x0800, ip4({.destination = host, .checksum_error = 1}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("fragment to the host", ethernet(0x0800, ip4({.destination = host, .fragment = 0x2000}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("IPv4 options to the host",
      ethernet(0x0800, ip4({.destination = host, .options = bytes(4, 1)}, syn)),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("truncated packet to the host", ethernet(0x0800, ip4({.destination = host}, bytes(3, 0))),
      kernel_reason::not_for_a_vip, drop_not_for_us);
  add("ping to a VIP", ethernet(0x0800, ip4({.protocol = 1}, bytes{8, 0, 0xf7, 0xff, 0, 0, 0, 0})),
      kernel_reason::icmp, drop_unsupported_protocol);
  add("ping to a VIP with TTL 1",
      ethernet(0x0800, ip4({.protocol = 1, .ttl = 1}, bytes{8, 0, 0xf7, 0xff, 0, 0, 0, 0})),
      kernel_reason::icmp, drop_unsupported_protocol);
  add("ICMPv6 to a VIP", ethernet(0x86dd, ip6({.next = 58}, bytes(8, 0))), kernel_reason::icmp,
      drop_unsupported_protocol);
  add("ICMPv6 behind hop-by-hop (MLD)",
      ethernet(0x86dd, ip6({.next = 0}, extension(58) + bytes(8, 0))), kernel_reason::icmp,
      drop_unsupported_protocol);
  add("GRE to a VIP", ethernet(0x0800, ip4({.protocol = 47}, bytes(20, 0))),
      kernel_reason::other_protocol, drop_unsupported_protocol);
  add("ESP to a VIP", ethernet(0x86dd, ip6({.next = 50}, bytes(20, 0))),
      kernel_reason::other_protocol, drop_unsupported_protocol);
  add("no next header", ethernet(0x86dd, ip6({.next = 59}, {})), kernel_reason::other_protocol,
      drop_unsupported_protocol);
  add("port without a service", ethernet(0x0800, ip4({}, tcp({40000, 444}))),
      kernel_reason::no_service_port, drop_no_service_port);
  add("UDP to an address with TCP services only",
      ethernet(0x0800, ip4({.destination = {198, 51, 100, 11}, .protocol = 17}, udp({40000, 80}))),
      kernel_reason::no_service_port, drop_no_service_port);
  add("TCP to an IPv6 address with UDP services only",
      ethernet(0x86dd, ip6({.destination =
                                [] {
                                  hexadec a = vip6;
                                  a[15] = 0x11;
                                  return a;
                                }()},
                           syn)),
      kernel_reason::no_service_port, drop_no_service_port);
  return rows;
}

}  // namespace sluice::test
