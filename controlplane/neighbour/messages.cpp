// SPDX-License-Identifier: Apache-2.0
#include "controlplane/neighbour/messages.hpp"

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace sluice::neighbour {

namespace {

// for_each() walks the attributes between two places (libmnl's macros are not C++).
template <class Fn>
void for_each(const void* begin, const void* end, Fn fn) {
  const auto* attr = static_cast<const nlattr*>(begin);
  const auto left = [&] {
    return static_cast<int>(static_cast<const char*>(end) - reinterpret_cast<const char*>(attr));
  };
  for (; mnl_attr_ok(attr, left()); attr = mnl_attr_next(attr)) fn(attr);
}

template <std::size_t N>
struct attributes {
  std::array<const nlattr*, N> at{};
  const nlattr* operator[](std::size_t type) const { return at[type]; }
};

// collect() indexes the attributes of a message by type; of a repeated one the last counts.
template <std::size_t N>
attributes<N> collect(const nlmsghdr* message, std::size_t header_size) {
  attributes<N> found;
  for_each(mnl_nlmsg_get_payload_offset(message, header_size), mnl_nlmsg_get_payload_tail(message),
           [&](const nlattr* attr) {
             const auto type = mnl_attr_get_type(attr);
             if (type < N) found.at[type] = attr;
           });
  return found;
}

template <class Header>
const Header* header_of(const nlmsghdr* message) {
  if (mnl_nlmsg_get_payload_len(message) < sizeof(Header)) return nullptr;
  return static_cast<const Header*>(mnl_nlmsg_get_payload(message));
}

std::optional<std::uint32_t> u32_of(const nlattr* attr) {
  if (attr == nullptr || mnl_attr_validate(attr, MNL_TYPE_U32) < 0) return std::nullopt;
  return mnl_attr_get_u32(attr);
}

std::optional<ip_address> address_from(int family, const void* data, std::size_t size) {
  if (family == AF_INET && size == 4) {
    std::array<std::uint8_t, 4> b;
    std::memcpy(b.data(), data, b.size());
    return ip_address::v4(b);
  }
  if (family == AF_INET6 && size == 16) {
    std::array<std::uint8_t, 16> b;
    std::memcpy(b.data(), data, b.size());
    return ip_address::v6(b);
  }
  return std::nullopt;
}

std::optional<ip_address> address_of(int family, const nlattr* attr) {
  if (attr == nullptr) return std::nullopt;
  return address_from(family, mnl_attr_get_payload(attr), mnl_attr_get_payload_len(attr));
}

// RTA_VIA: a gateway of the other family (an IPv4 route over an IPv6 neighbour, RFC 8950).
std::optional<ip_address> via_of(const nlattr* attr) {
  if (attr == nullptr || mnl_attr_get_payload_len(attr) < sizeof(rtvia)) return std::nullopt;
  rtvia via;
  const auto* data = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attr));
  std::memcpy(&via, data, sizeof via);
  return address_from(via.rtvia_family, data + sizeof via,
                      mnl_attr_get_payload_len(attr) - sizeof via);
}

std::optional<mac_address> mac_of(const nlattr* attr) {
  mac_address mac{};
  if (attr == nullptr || mnl_attr_get_payload_len(attr) != mac.size()) return std::nullopt;
  std::memcpy(mac.data(), mnl_attr_get_payload(attr), mac.size());
  return mac;
}

std::uint32_t mtu_metric(const nlattr* metrics) {
  std::uint32_t mtu = 0;
  if (metrics == nullptr) return mtu;
  const auto* begin = static_cast<const char*>(mnl_attr_get_payload(metrics));
  for_each(begin, begin + mnl_attr_get_payload_len(metrics), [&](const nlattr* attr) {
    if (mnl_attr_get_type(attr) == RTAX_MTU) mtu = u32_of(attr).value_or(0);
  });
  return mtu;
}

void put_address(nlmsghdr* message, std::uint16_t type, const ip_address& a) {
  if (a.is_v4())
    mnl_attr_put(message, type, 4, a.bytes.data() + 12);
  else
    mnl_attr_put(message, type, 16, a.bytes.data());
}

std::uint8_t family_of(const ip_address& a) {
  return a.is_v4() ? AF_INET : AF_INET6;
}

template <class Header>
Header* start(void* buffer, nlmsghdr*& message, std::uint16_t type, int flags) {
  message = mnl_nlmsg_put_header(buffer);
  message->nlmsg_type = type;
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  return static_cast<Header*>(mnl_nlmsg_put_extra_header(message, sizeof(Header)));
}

}  // namespace

bool prefix::contains(const ip_address& a) const noexcept {
  const std::size_t whole = length / 8;
  if (!std::equal(base.bytes.begin(), base.bytes.begin() + whole, a.bytes.begin())) return false;
  if (length % 8 == 0) return true;
  const unsigned mask = 0xff00U >> (length % 8) & 0xffU;
  return ((base.bytes[whole] ^ a.bytes[whole]) & mask) == 0;
}

std::optional<link_info> parse_link(const nlmsghdr* message) {
  const auto* header = header_of<ifinfomsg>(message);
  if (header == nullptr || header->ifi_family == AF_BRIDGE) return std::nullopt;
  const auto attrs = collect<IFLA_MTU + 1>(message, sizeof *header);
  link_info link;
  link.index = header->ifi_index;
  link.up = (header->ifi_flags & IFF_UP) != 0;
  link.running = (header->ifi_flags & IFF_RUNNING) != 0;
  if (const nlattr* name = attrs[IFLA_IFNAME];
      name != nullptr && mnl_attr_validate(name, MNL_TYPE_NUL_STRING) == 0)
    link.name = mnl_attr_get_str(name);
  link.mac = mac_of(attrs[IFLA_ADDRESS]).value_or(mac_address{});
  link.mtu = u32_of(attrs[IFLA_MTU]).value_or(0);
  return link;
}

std::optional<route_info> parse_route(const nlmsghdr* message) {
  const auto* header = header_of<rtmsg>(message);
  if (header == nullptr) return std::nullopt;
  const auto attrs = collect<RTA_VIA + 1>(message, sizeof *header);
  route_info route;
  route.type = header->rtm_type;
  route.interface_index = static_cast<int>(u32_of(attrs[RTA_OIF]).value_or(0));
  route.gateway = address_of(header->rtm_family, attrs[RTA_GATEWAY]);
  if (!route.gateway) route.gateway = via_of(attrs[RTA_VIA]);
  route.mtu = mtu_metric(attrs[RTA_METRICS]);
  return route;
}

std::optional<prefix> parse_route_prefix(const nlmsghdr* message) {
  const auto* header = header_of<rtmsg>(message);
  if (header == nullptr) return std::nullopt;
  const bool v4 = header->rtm_family == AF_INET;
  if (!v4 && header->rtm_family != AF_INET6) return std::nullopt;
  const auto attrs = collect<RTA_DST + 1>(message, sizeof *header);
  prefix p;
  if (v4) p.base = ip_address::v4({0, 0, 0, 0});
  if (attrs[RTA_DST] != nullptr) {
    const auto base = address_of(header->rtm_family, attrs[RTA_DST]);
    if (!base) return std::nullopt;
    p.base = *base;
  }
  p.length = (v4 ? 96U : 0U) + header->rtm_dst_len;
  if (p.length > 128) return std::nullopt;
  return p;
}

std::optional<neighbour_info> parse_neighbour(const nlmsghdr* message) {
  const auto* header = header_of<ndmsg>(message);
  if (header == nullptr || (header->ndm_flags & NTF_PROXY) != 0) return std::nullopt;
  const auto attrs = collect<NDA_LLADDR + 1>(message, sizeof *header);
  const auto address = address_of(header->ndm_family, attrs[NDA_DST]);
  if (!address) return std::nullopt;
  return neighbour_info{header->ndm_ifindex, *address, header->ndm_state,
                        mac_of(attrs[NDA_LLADDR])};
}

nlmsghdr* build_link_dump(void* buffer) {
  nlmsghdr* message;
  start<ifinfomsg>(buffer, message, RTM_GETLINK, NLM_F_DUMP);
  return message;
}

nlmsghdr* build_route_lookup(void* buffer, const ip_address& destination) {
  nlmsghdr* message;
  auto* header = start<rtmsg>(buffer, message, RTM_GETROUTE, 0);
  header->rtm_family = family_of(destination);
  header->rtm_dst_len = destination.is_v4() ? 32 : 128;
  put_address(message, RTA_DST, destination);
  return message;
}

nlmsghdr* build_neighbour_get(void* buffer, int interface_index, const ip_address& a) {
  nlmsghdr* message;
  auto* header = start<ndmsg>(buffer, message, RTM_GETNEIGH, 0);
  header->ndm_family = family_of(a);
  header->ndm_ifindex = interface_index;
  put_address(message, NDA_DST, a);
  return message;
}

nlmsghdr* build_neighbour_use(void* buffer, int interface_index, const ip_address& a) {
  nlmsghdr* message;
  auto* header = start<ndmsg>(buffer, message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK);
  header->ndm_family = family_of(a);
  header->ndm_ifindex = interface_index;
  header->ndm_state = NUD_NONE;
  header->ndm_flags = NTF_USE;
  put_address(message, NDA_DST, a);
  return message;
}

}  // namespace sluice::neighbour
