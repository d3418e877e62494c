// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/standin_contents.hpp"

#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "dataplane/abi/stateless_choice.hpp"

namespace sluice::bpf_loader {

namespace {

constexpr std::uint8_t not_configured = 0xff;

sluice_vip_key make_key(const ip_address& address, std::uint16_t port, std::uint8_t protocol) {
  sluice_vip_key key{};
  std::memcpy(key.address, address.bytes.data(), sizeof(key.address));
  key.port = be16{port}.raw();
  key.protocol = protocol;
  return key;
}

sluice_standin_config config_of(const abi::generation_header& h) {
  sluice_standin_config c{};
  c.hash_seed = h.hash_seed;
  c.ready = 1;
  c.generation = h.number;
  c.gue_port = be16{h.gue_port != 0 ? h.gue_port : std::uint16_t{SLUICE_GUE_PORT}}.raw();
  c.prefix4 = h.source4.configured != 0 ? h.source4.prefix : not_configured;
  c.prefix6 = h.source6.configured != 0 ? h.source6.prefix : not_configured;
  std::memcpy(c.source4, h.source4.base.bytes.data() + 12, sizeof c.source4);
  std::memcpy(c.source6, h.source6.base.bytes.data(), sizeof c.source6);
  return c;
}

// add_ports() enters a service's ports; those that have no room as a range one by one.
void add_ports(standin_contents& out, const ip_address& address, const abi::service_row& s) {
  const auto service = static_cast<std::uint32_t>(s.self);
  const auto single = [&](std::uint16_t port) {
    if (out.ports.size() >= SLUICE_MAX_VIP_ENTRIES) return;
    sluice_standin_ports value{};
    value.service = service;
    out.ports.insert_or_assign(make_key(address, port, s.protocol), value);
  };
  if (s.port_first == s.port_last && s.port_first != 0) return single(s.port_first);
  sluice_standin_ports none{};
  none.service = SLUICE_NO_SERVICE;
  auto& value = out.ports.try_emplace(make_key(address, 0, s.protocol), none).first->second;
  if (s.port_first == 0) {
    value.service = service;
  } else if (value.ranges < SLUICE_VIP_RANGES) {
    value.range[value.ranges++] = {s.port_first, s.port_last, service};
  } else {
    for (std::uint32_t port = s.port_first; port <= s.port_last; ++port)
      single(static_cast<std::uint16_t>(port));
  }
}

sluice_standin_row make_row(const abi::backend_row& b, std::span<const standin_port> ports) {
  sluice_standin_row row{};
  std::memcpy(row.address, b.address.bytes.data(), sizeof row.address);
  std::memcpy(row.next_hop, b.next_hop.data(), sizeof row.next_hop);
  if ((b.flags & abi::backend_has_next_hop) != 0 && b.out_port < ports.size()) {
    row.out_ifindex = ports[b.out_port].index;
    std::memcpy(row.out_mac, ports[b.out_port].mac.data(), sizeof row.out_mac);
  }
  row.mtu = b.mtu != 0 ? b.mtu : 65535;
  row.mode = static_cast<std::uint8_t>(b.mode);
  row.keeps = (b.flags & abi::backend_keeps_connections) != 0 ? 1 : 0;
  return row;
}

}  // namespace

standin_port read_port(const std::string& interface) {
  standin_port port;
  port.index = ::if_nametoindex(interface.c_str());
  ifreq request{};
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  std::memcpy(request.ifr_name, interface.data(),
              std::min<std::size_t>(interface.size(), IFNAMSIZ - 1));
  if (port.index == 0 || fd < 0 || ::ioctl(fd, SIOCGIFHWADDR, &request) != 0) port.index = 0;
  if (fd >= 0) ::close(fd);
  if (port.index != 0) std::memcpy(port.mac.data(), request.ifr_hwaddr.sa_data, port.mac.size());
  return port;
}

standin_contents standin_of(const abi::config_view& view, std::span<const standin_port> ports) {
  standin_contents out;
  if (view.empty()) return out;
  out.config = config_of(view.header());
  std::unordered_map<std::uint16_t, ip_address> addresses;
  for (std::uint32_t i = 0; i <= view.header().vip_mask; ++i)
    if (const abi::vip_row& row = view.vip_at(i); row.protocol != 0)
      addresses.emplace(static_cast<std::uint16_t>(row.id), row.address);
  for (std::uint32_t i = 0; i < view.header().service_count; ++i) {
    const abi::service_row* s = view.service(static_cast<abi::service_id>(i));
    if (s == nullptr) continue;
    const auto address = addresses.find(static_cast<std::uint16_t>(s->vip));
    if (address == addresses.end()) continue;
    add_ports(out, address->second, *s);
    table_identity table{s->table_offset, s->table_digest, s->table_size, table_word(view, *s), {}};
    table.members.reserve(s->member_count);
    for (std::uint32_t m = 0; m < s->member_count; ++m)
      table.members.push_back(view.member(*s, m).value);
    if (!table.members.empty()) out.tables.emplace(i, std::move(table));
  }
  for (std::uint32_t i = 0; i < view.header().backend_count; ++i) {
    const abi::backend_row* b = view.backend_at(i);
    if (b != nullptr && (b->flags & abi::backend_in_use) != 0)
      out.rows.emplace(abi::backend_ref::make(i, b->incarnation).value, make_row(*b, ports));
  }
  return out;
}

std::uint64_t table_word(const abi::config_view& view, const abi::service_row& s) {
  const abi::service_options* options = abi::options_of(view, s);
  if (!abi::goes_by_source(s, options)) return 0;
  std::uint64_t bits4 = 32;
  std::uint64_t bits6 = 128;
  if (options != nullptr && options->persistence_timeout != 0) {
    bits4 = std::min<std::uint64_t>(options->persistence_prefix4, bits4);
    bits6 = std::min<std::uint64_t>(options->persistence_prefix6, bits6);
  }
  return SLUICE_TABLE_BY_SOURCE | bits4 << SLUICE_TABLE_BITS4_SHIFT |
         bits6 << SLUICE_TABLE_BITS6_SHIFT;
}

std::vector<std::uint64_t> slots_of(const abi::config_view& view, std::uint32_t service) {
  const abi::service_row* s = view.service(static_cast<abi::service_id>(service));
  if (s == nullptr || s->member_count == 0) return {};
  const bool members_only = abi::does_without_table(*s);
  const std::uint32_t slots = members_only ? s->member_count : s->table_size;
  if (slots == 0) return {};
  std::vector<std::uint64_t> out(SLUICE_TABLE_ELEMENTS(std::size_t{slots}));
  out[0] = slots | table_word(view, *s);
  const abi::slot_table table = view.table_of(*s);
  if (!members_only && table.size() != slots) return {};
  for (std::uint32_t i = 0; i < slots; ++i) {
    const std::uint32_t position = members_only ? i : table[i];
    out[1 + i / 2] |= std::uint64_t{view.member(*s, position).value} << (i % 2 * 32);
  }
  return out;
}

void keep_slots(std::vector<std::uint64_t>& slots, std::span<const std::uint64_t> before,
                const std::map<std::uint32_t, sluice_standin_row>& rows) {
  // Another number of slots, or another way to find one: no slot is the one that it was.
  if (slots.size() != before.size() || slots.empty() || slots[0] != before[0]) return;
  const auto kept = [&](std::uint64_t now, std::uint64_t old) {
    const auto row = rows.find(static_cast<std::uint32_t>(old));
    return row != rows.end() && row->second.keeps != 0 ? old : now;
  };
  constexpr std::uint64_t low = 0xffffffff;
  for (std::size_t i = 1; i < slots.size(); ++i)
    if (slots[i] != before[i])
      slots[i] = kept(slots[i] & low, before[i] & low) | kept(slots[i] >> 32, before[i] >> 32)
                                                             << 32;
}

}  // namespace sluice::bpf_loader
