// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/description.hpp"

#include <algorithm>

namespace sluice::reference {

address address4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  return {4, {a, b, c, d}};
}
address address6(const std::array<std::uint8_t, 16>& bytes) {
  return {16, bytes};
}
ip_address to_table(const address& a) {
  if (a.size == 16) return ip_address::v6(a.bytes);
  return ip_address::v4({a.bytes[0], a.bytes[1], a.bytes[2], a.bytes[3]});
}

std::optional<std::size_t> description::vip_of(const address& at, unsigned protocol) const {
  for (std::size_t i = 0; i < vips.size(); ++i)
    if (vips[i].in_use && vips[i].at == at && vips[i].protocol == protocol) return i;
  return {};
}

std::optional<unsigned> description::service_of(std::size_t vip, unsigned port) const {
  std::optional<unsigned> range;
  std::optional<unsigned> any;
  for (unsigned i = 0; i < services.size(); ++i) {
    const service& s = services[i];
    if (!s.in_use || s.vip != vip || port < s.first || port > s.last) continue;
    if (s.first == s.last) return i;
    (s.first == 0 && s.last == 65535 ? any : range) = i;
  }
  return range ? range : any;
}

bool description::translates() const {
  return !empty && std::any_of(services.begin(), services.end(), [](const service& s) {
    return s.in_use && (s.mode == abi::forward_mode::nat || s.mode == abi::forward_mode::full_nat);
  });
}

void fill(const description& from, test::table_builder& to) {
  abi::generation_header& h = to.header();
  h.hash_seed = from.hash_seed;
  const auto source = [](const tunnel_source& s) {
    return abi::encap_source{
        to_table(s.base), static_cast<std::uint8_t>(s.prefix), s.configured, {}};
  };
  h.source4 = source(from.source4);
  h.source6 = source(from.source6);
  h.gue_port = static_cast<std::uint16_t>(from.gue_port);
  h.icmp_rate = 1'000'000'000;  // never reached: limits are for other tests
  std::copy(from.timeouts.begin(), from.timeouts.end(), h.timeouts.begin());
  for (const address& a : from.pool) to.add_to_pool(to_table(a));
  for (const vip& v : from.vips)
    if (v.in_use)
      to.vip(to_table(v.at), ip_proto{static_cast<std::uint8_t>(v.protocol)}).id =
          abi::vip_id{static_cast<std::uint16_t>(v.id)};
  for (const service& s : from.services) {
    if (!s.in_use) {
      to.service(h.service_count++).self = abi::no_service;
      continue;
    }
    const vip& v = from.vips[s.vip];
    const abi::service_id id =
        to.add_service(to_table(v.at), ip_proto{static_cast<std::uint8_t>(v.protocol)},
                       static_cast<std::uint16_t>(s.first), static_cast<std::uint16_t>(s.last),
                       s.mode, {}, static_cast<std::uint32_t>(s.table.size()));
    abi::service_row& row = to.service(static_cast<std::uint32_t>(id));
    row.kind = s.kind;
    row.mss_clamp = static_cast<std::uint16_t>(s.mss_clamp);
    if (s.answers_echo) row.flags = abi::service_answers_echo;
    row.member_count = static_cast<std::uint32_t>(s.members.size());
    for (std::uint32_t i = 0; i < row.table_size; ++i) to.set_slot(row, i, s.table[i]);
    for (const unsigned m : s.members)
      to.member(h.member_count++) = abi::backend_ref::make(m, from.backends[m].incarnation);
  }
  for (const backend& b : from.backends) {
    abi::backend_row& row = to.backend(h.backend_count++);
    row = {};
    if (!b.in_use) continue;
    row.address = to_table(b.at);
    row.next_hop = b.next_hop;
    row.out_port = static_cast<std::uint8_t>(b.out_port);
    row.flags = static_cast<std::uint8_t>(
        abi::backend_in_use | (b.keeps_connections ? abi::backend_keeps_connections : 0) |
        (b.has_next_hop ? abi::backend_has_next_hop : 0));
    row.service = abi::service_id{static_cast<std::uint16_t>(b.service)};
    row.incarnation = static_cast<std::uint8_t>(b.incarnation);
    row.mode = from.services[b.service].mode;
    row.mtu = static_cast<std::uint16_t>(b.mtu);
    row.dscp = static_cast<std::uint8_t>(b.dscp);
    row.port = static_cast<std::uint16_t>(b.port);
    row.weight = b.weight;
  }
}

}  // namespace sluice::reference
