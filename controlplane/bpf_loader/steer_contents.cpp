// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/steer_contents.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace sluice::bpf_loader {

namespace {

template <class T>
void sort_unique(std::vector<T>& v) {
  std::sort(v.begin(), v.end());
  v.erase(std::unique(v.begin(), v.end()), v.end());
}

std::unordered_map<std::uint16_t, ip_address> vip_addresses(const abi::config_view& view) {
  std::unordered_map<std::uint16_t, ip_address> out;
  for (std::uint32_t i = 0; i <= view.header().vip_mask; ++i)
    if (const abi::vip_row& row = view.vip_at(i); row.protocol != 0)
      out.emplace(static_cast<std::uint16_t>(row.id), row.address);
  return out;
}

void add_encap_source(std::vector<ip_prefix>& to, const abi::encap_source& source) {
  if (source.configured != 0) to.push_back({source.base, source.prefix});
}

}  // namespace

steer_contents contents_of(const abi::config_view& view) {
  steer_contents out;
  if (view.empty()) return out;
  const auto addresses = vip_addresses(view);
  for (std::uint32_t i = 0; i < view.header().service_count; ++i) {
    const abi::service_row* s = view.service(static_cast<abi::service_id>(i));
    if (s == nullptr) continue;
    const auto address = addresses.find(static_cast<std::uint16_t>(s->vip));
    if (address == addresses.end()) continue;
    out.vips.push_back(
        {address->second, static_cast<ip_proto>(s->protocol), s->port_first, s->port_last});
  }
  for (std::uint32_t i = 0; i < view.header().backend_count; ++i) {
    const abi::backend_row* b = view.backend_at(i);
    if (b == nullptr || (b->flags & abi::backend_in_use) == 0 || b->mode != abi::forward_mode::nat)
      continue;
    const abi::service_row* s = view.service(b->service);
    if (s == nullptr) continue;
    const auto protocol = static_cast<ip_proto>(s->protocol);
    if (b->port != 0)
      out.nat_sources.push_back({b->address, protocol, b->port, b->port});
    else
      out.nat_sources.push_back({b->address, protocol, s->port_first, s->port_last});
  }
  for (const ip_address& address : view.pool())
    for (const ip_proto protocol : {ip_proto::tcp, ip_proto::udp})
      out.vips.push_back({address, protocol, 0, 65535});
  add_encap_source(out.encap_sources, view.header().source4);
  add_encap_source(out.encap_sources, view.header().source6);
  out.gue_port =
      view.header().gue_port != 0 ? view.header().gue_port : std::uint16_t{SLUICE_GUE_PORT};
  sort_unique(out.vips);
  sort_unique(out.nat_sources);
  sort_unique(out.encap_sources);
  return out;
}

std::vector<ip_address> host_addresses() {
  std::vector<ip_address> out;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return out;
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr) continue;
    if (i->ifa_addr->sa_family == AF_INET) {
      std::array<std::uint8_t, 4> v4{};
      std::memcpy(v4.data(), &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr, 4);
      out.push_back(ip_address::v4(v4));
    } else if (i->ifa_addr->sa_family == AF_INET6) {
      ip_address a;
      std::memcpy(a.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(i->ifa_addr)->sin6_addr,
                  a.bytes.size());
      out.push_back(a);
    }
  }
  ::freeifaddrs(list);
  sort_unique(out);
  return out;
}

}  // namespace sluice::bpf_loader
