// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "dataplane/abi/flow_hash.h"
#include "tests/packet/rows.hpp"

namespace sluice::test {

void fill_config(table_builder& t) {
  using abi::forward_mode;
  t.header().source4 = {ip_address::v4(outer_source4), 32, 1, {}};
  t.header().source6 = {ip_address::v6(outer_source6), 128, 1, {}};
  const std::uint8_t all =
      abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;
  const auto backend = [&](unsigned service, const ip_address& address, std::uint16_t mtu = 1500) {
    return table_builder::backend_spec{address, next_hop_of(service), out_port_of(service), mtu,
                                       all};
  };
  const auto vip4 = [](std::uint8_t last) { return ip_address::v4({198, 51, 100, last}); };
  const auto vip6_at = [](std::uint8_t last) {
    hexadec a = vip6;
    a[15] = last;
    return ip_address::v6(a);
  };
  const ip_address b4 = ip_address::v4(backend4);
  const ip_address b6 = ip_address::v6(backend6);
  const auto tcp = ip_proto::tcp;
  const auto udp = ip_proto::udp;
  const auto ipip = forward_mode::ipip;
  const auto dsr = forward_mode::dsr_l2;

  t.add_service(vip4(10), tcp, 443, 443, ipip, {backend(web_4in4, b4)});
  t.add_service(vip4(10), tcp, 80, 80, ipip, {backend(web_4in6, b6)});
  t.add_service(vip4(11), tcp, 80, 80, dsr, {backend(dsr4, b4)});
  t.add_service(vip4(10), udp, 53, 53, ipip, {backend(dns4, b4)});
  t.add_service(vip4(12), tcp, 8000, 8100, ipip, {backend(range4, b4)});
  t.add_service(vip4(12), tcp, 9000, 9001, dsr, {backend(range4_second, b4)});
  t.add_service(vip4(12), tcp, 0, 65535, dsr, {backend(any4, b4)});
  t.add_service(vip6_at(0x10), tcp, 443, 443, ipip, {backend(web_6in6, b6)});
  t.add_service(vip6_at(0x10), tcp, 80, 80, ipip, {backend(web_6in4, b4)});
  t.add_service(vip6_at(0x11), udp, 0, 65535, dsr, {backend(dsr6, b6)});
  t.add_service(vip4(13), tcp, 80, 80, ipip, {});
  // Row numbers of the backends fall one behind from here on.
  auto no_hop = backend(no_hop4, b4);
  no_hop.flags = abi::backend_in_use | abi::backend_keeps_connections;
  t.add_service(vip4(13), tcp, 81, 81, ipip, {no_hop});
  auto bad_port = backend(bad_port4, b4);
  bad_port.out_port = 7;
  t.add_service(vip4(13), tcp, 82, 82, ipip, {bad_port});
  t.add_service(vip4(13), tcp, 83, 83, ipip, {backend(small_mtu4, b4, 100)});
  t.add_service(vip4(13), tcp, 84, 84, dsr, {backend(small_dsr4, b4, 100)});
  t.add_service(vip4(13), tcp, 85, 85, ipip, {backend(no_mtu4, b4, 0)});

  const auto gue = forward_mode::gue;
  const auto gre = forward_mode::gre;
  const auto dscp = forward_mode::dsr_dscp;
  const auto marked = [&](unsigned service, const ip_address& address, std::uint8_t number,
                          std::uint16_t mtu = 1500) {
    auto b = backend(service, address, mtu);
    b.dscp = number;
    return b;
  };
  t.add_service(vip4(14), tcp, 443, 443, gue, {backend(gue_4in4, b4)});
  t.add_service(vip4(14), tcp, 80, 80, gue, {backend(gue_4in6, b6)});
  t.add_service(vip4(14), udp, 53, 53, gue, {backend(gue_udp4, b4)});
  t.add_service(vip4(14), tcp, 444, 444, gre, {backend(gre_4in4, b4)});
  t.add_service(vip4(14), tcp, 81, 81, gre, {backend(gre_4in6, b6)});
  t.add_service(vip6_at(0x14), tcp, 443, 443, gue, {backend(gue_6in6, b6)});
  t.add_service(vip6_at(0x14), tcp, 80, 80, gue, {backend(gue_6in4, b4)});
  t.add_service(vip6_at(0x14), tcp, 444, 444, gre, {backend(gre_6in6, b6)});
  t.add_service(vip6_at(0x14), tcp, 81, 81, gre, {backend(gre_6in4, b4)});
  t.add_service(vip4(15), tcp, 80, 80, dscp, {marked(dscp_tcp4, b4, 10)});
  t.add_service(vip4(15), udp, 53, 53, dscp, {marked(dscp_udp4, b4, 63)});
  t.add_service(vip6_at(0x15), tcp, 80, 80, dscp, {marked(dscp_tcp6, b6, 10)});
  t.add_service(vip6_at(0x15), udp, 53, 53, dscp, {marked(dscp_udp6, b6, 63)});
  t.add_service(vip4(13), tcp, 86, 86, gue, {backend(small_gue4, b4, 100)});
  t.add_service(vip4(13), tcp, 87, 87, gre, {backend(small_gre4, b4, 100)});
  t.add_service(vip4(13), tcp, 88, 88, dscp, {marked(small_dscp4, b4, 1, 100)});
  t.add_service(vip4(20), tcp, 80, 80, ipip, {backend(echo4, b4)});
  t.add_service(vip6_at(0x20), tcp, 80, 80, ipip, {backend(echo6, b6)});
  t.service(echo4).flags = t.service(echo6).flags = abi::service_answers_echo;
  t.service(echo4).mss_clamp = 1400;
  t.service(echo6).mss_clamp = 1380;
  const auto to_port = [&](unsigned service, const ip_address& address, std::uint16_t port) {
    auto b = backend(service, address);
    b.port = port;
    return b;
  };
  const auto nat = forward_mode::nat;
  const auto full = forward_mode::full_nat;
  t.add_service(vip4(16), tcp, 80, 80, nat, {to_port(nat_tcp4, b4, 8080)});
  t.add_service(vip4(16), udp, 53, 53, nat, {to_port(nat_udp4, b4, 0)});
  t.add_service(vip6_at(0x16), tcp, 80, 80, nat, {to_port(nat_tcp6, b6, 8080)});
  t.add_service(vip4(16), tcp, 81, 81, full, {to_port(full_tcp4, b4, 8081)});
  t.add_service(vip4(16), tcp, 82, 82, full, {to_port(full_toa4, b4, 8082)});
  t.add_service(vip4(16), tcp, 83, 83, full, {to_port(full_proxy4, b4, 8083)});
  t.add_service(vip6_at(0x16), tcp, 83, 83, full, {to_port(full_proxy6, b6, 8083)});
  t.options(abi::service_id{full_toa4}).client = abi::client_address::toa;
  t.options(abi::service_id{full_proxy4}).client = abi::client_address::proxy_v2;
  t.options(abi::service_id{full_proxy6}).client = abi::client_address::proxy_v2;
  t.add_to_pool(ip_address::v4(pool4));
  t.add_to_pool(ip_address::v6(pool6));
  // Not what the rows are about: icmp_test.cpp.
  t.header().icmp_rate = 1'000'000'000;
}

std::vector<row> all_rows() {
  std::vector<row> all;
  for (const auto& some : {ipv4_rows(), ipv6_rows(), modes_rows(), refused_rows(), kernel_rows(),
                           icmp_rows(), mss_rows(), fragment_rows()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

namespace {

std::uint32_t label(std::uint64_t hash) {
  const auto l = static_cast<std::uint32_t>(hash & 0xfffff);
  return l == 0 ? 1 : l;
}
template <class T>
T raw(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
std::uint32_t swapped(unsigned port) {
  return ((port & 0xff) << 8) | (port >> 8);
}

}  // namespace

std::uint32_t label4(const ip4_fields& ip, unsigned source, unsigned destination) {
  return label(sluice_flow_hash4(42, raw<std::uint32_t>(ip.source.data()),
                                 raw<std::uint32_t>(ip.destination.data()), swapped(source),
                                 swapped(destination), ip.protocol));
}
namespace {
std::uint32_t label6_of(const ip6_fields& ip, unsigned source, unsigned destination,
                        unsigned protocol) {
  const auto word = [](const hexadec& a, std::size_t i) {
    return raw<std::uint64_t>(a.data() + i);
  };
  return label(sluice_flow_hash6(42, word(ip.source, 0), word(ip.source, 8),
                                 word(ip.destination, 0), word(ip.destination, 8), swapped(source),
                                 swapped(destination), protocol));
}
}  // namespace
std::uint32_t label6(const ip6_fields& ip, unsigned source, unsigned destination) {
  return label6_of(ip, source, destination, 6);
}
std::uint32_t label6_bare(const ip6_fields& ip, unsigned protocol) {
  return label6_of(ip, 0, 0, protocol);
}

}  // namespace sluice::test
