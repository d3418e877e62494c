// SPDX-License-Identifier: Apache-2.0
// Packet tests are rows: what it is, the packet in, the verdict, the packet out. One
// config for all of them (rows_config.cpp); the rows are in rows_*.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/path/packet.hpp"
#include "tests/packet/frame_builder.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {

// The services of the config, each with one backend of the same number.
enum row_service : std::uint16_t {
  web_4in4,       // 198.51.100.10 tcp 443
  web_4in6,       // 198.51.100.10 tcp 80
  dsr4,           // 198.51.100.11 tcp 80
  dns4,           // 198.51.100.10 udp 53, 4in4
  range4,         // 198.51.100.12 tcp 8000-8100, 4in4
  range4_second,  // 198.51.100.12 tcp 9000-9001, dsr-l2
  any4,           // 198.51.100.12 tcp any, dsr-l2
  web_6in6,       // 2001:db8:f::10 tcp 443
  web_6in4,       // 2001:db8:f::10 tcp 80
  dsr6,           // 2001:db8:f::11 udp any
  empty4,         // 198.51.100.13 tcp 80, no backend
  no_hop4,        // 198.51.100.13 tcp 81, next hop not known
  bad_port4,      // 198.51.100.13 tcp 82, out_port that is none
  small_mtu4,     // 198.51.100.13 tcp 83, ipip, MTU 100
  small_dsr4,     // 198.51.100.13 tcp 84, dsr-l2, MTU 100
  no_mtu4,        // 198.51.100.13 tcp 85, ipip, MTU not known
  gue_4in4,       // 198.51.100.14 tcp 443
  gue_4in6,       // 198.51.100.14 tcp 80
  gue_udp4,       // 198.51.100.14 udp 53, 4in4
  gre_4in4,       // 198.51.100.14 tcp 444
  gre_4in6,       // 198.51.100.14 tcp 81
  gue_6in6,       // 2001:db8:f::14 tcp 443
  gue_6in4,       // 2001:db8:f::14 tcp 80
  gre_6in6,       // 2001:db8:f::14 tcp 444
  gre_6in4,       // 2001:db8:f::14 tcp 81
  dscp_tcp4,      // 198.51.100.15 tcp 80, DSCP 10
  dscp_udp4,      // 198.51.100.15 udp 53, DSCP 63
  dscp_tcp6,      // 2001:db8:f::15 tcp 80, DSCP 10
  dscp_udp6,      // 2001:db8:f::15 udp 53, DSCP 63
  small_gue4,     // 198.51.100.13 tcp 86, gue, MTU 100
  small_gre4,     // 198.51.100.13 tcp 87, gre, MTU 100
  small_dscp4,    // 198.51.100.13 tcp 88, dsr-dscp, MTU 100
  echo4,          // 198.51.100.20 tcp 80, ipip, answers echo, MSS 1400
  echo6,          // 2001:db8:f::20 tcp 80, ipip, answers echo, MSS 1380
  nat_tcp4,       // 198.51.100.16 tcp 80, nat to port 8080
  nat_udp4,       // 198.51.100.16 udp 53, nat
  nat_tcp6,       // 2001:db8:f::16 tcp 80, nat to port 8080
  full_tcp4,      // 198.51.100.16 tcp 81, full-nat
  full_toa4,      // 198.51.100.16 tcp 82, full-nat, toa
  full_proxy4,    // 198.51.100.16 tcp 83, full-nat, proxy-v2
  full_proxy6,    // 2001:db8:f::16 tcp 83, full-nat, proxy-v2
  row_service_count,
};

inline constexpr quad backend4{10, 0, 1, 11};
inline constexpr hexadec backend6{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11};
inline constexpr quad outer_source4{192, 0, 2, 10};
inline constexpr hexadec outer_source6{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0,
                                       0,    0,    0,    0,    0, 0, 0, 0x08};
inline constexpr quad pool4{192, 0, 2, 200};
inline constexpr hexadec pool6{0x20, 1, 0xd, 0xb8, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
// next_hop_of() and out_port_of() are what the config gives a service's backend.
inline constexpr mac next_hop_of(unsigned service) {
  return {2, 0, 0, 0, 0xb, static_cast<std::uint8_t>(service)};
}
inline constexpr std::uint8_t out_port_of(unsigned service) {
  return static_cast<std::uint8_t>(service % 2);
}
inline constexpr mac port_mac_of(unsigned port) {
  return {2, 0, 0, 0, 0, static_cast<std::uint8_t>(port + 1)};
}

struct row {
  std::string what;
  bytes in;
  verdict outcome;
  // forward: service and the frame out; drop: reason; kernel: why.
  unsigned service{row_service_count};
  bytes out{};
  abi::counter_id reason{abi::counter_id::count_};
  kernel_reason why{kernel_reason::none};
  std::uint8_t in_port{1};
  std::uint16_t headroom{128};
  std::size_t first_segment{SIZE_MAX};
};

inline row sent(std::string what, bytes in, unsigned service, bytes out) {
  return {std::move(what), std::move(in), verdict::forward, service, std::move(out)};
}
// A drop looks the same whether or not the port has a kernel, unless it is left to it.
inline row dropped(std::string what, bytes in, abi::counter_id reason) {
  return {std::move(what), std::move(in), verdict::drop, row_service_count, {}, reason};
}
// left() makes the row for a port with a kernel; without one the packet is dropped for
// `otherwise`.
inline row left(std::string what, bytes in, kernel_reason why, abi::counter_id otherwise) {
  return {
      std::move(what), std::move(in), verdict::kernel, row_service_count, {}, otherwise, why, 0};
}

// answered() makes the row for a packet that is turned into an answer; reason: what it
// counts as besides, if it does.
inline row answered(std::string what, bytes in, bytes out,
                    abi::counter_id reason = abi::counter_id::count_) {
  return {std::move(what),   std::move(in),  verdict::reply,
          row_service_count, std::move(out), reason};
}

// framed() is what goes out to a service's backend: MAC addresses, tags, type, packet.
inline bytes framed(unsigned service, unsigned type, const bytes& packet,
                    const std::vector<tag>& tags = {}) {
  return ethernet(type, packet, tags, next_hop_of(service), port_mac_of(out_port_of(service)));
}
// in4() and in6() wrap an inner packet as the tunnel to the config's backends does.
// flow label: RFC 6438 wants one; rows give the value that the flow hash must lead to.
inline bytes in4(const bytes& inner, unsigned protocol, unsigned tos = 0) {
  return ip4({outer_source4, backend4, protocol, 64, tos, 0, 0x4000}, inner);
}
inline bytes in6(const bytes& inner, unsigned next, std::uint32_t label, unsigned tclass = 0) {
  return ip6({outer_source6, backend6, next, 64, tclass, label}, inner);
}

void fill_config(table_builder& tables);
[[nodiscard]] std::vector<row> ipv4_rows();
[[nodiscard]] std::vector<row> ipv6_rows();
[[nodiscard]] std::vector<row> modes_rows();
[[nodiscard]] std::vector<row> refused_rows();
[[nodiscard]] std::vector<row> kernel_rows();
[[nodiscard]] std::vector<row> icmp_rows();
[[nodiscard]] std::vector<row> mss_rows();
[[nodiscard]] std::vector<row> fragment_rows();
// all_rows() is those of all functions above.
[[nodiscard]] std::vector<row> all_rows();

// label_of() is the flow label of a flow, by the documented rule: the low 20 bits of the
// flow hash, 1 instead of 0. Checked against scapy-side code in cross_check.py too.
[[nodiscard]] std::uint32_t label4(const ip4_fields& ip, unsigned source, unsigned destination);
[[nodiscard]] std::uint32_t label6(const ip6_fields& ip, unsigned source, unsigned destination);
// label6_bare() is the label of what has no ports, by its addresses and its last header.
[[nodiscard]] std::uint32_t label6_bare(const ip6_fields& ip, unsigned protocol = 58);

}  // namespace sluice::test
