// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/probe_source.hpp"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string_view>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::reconcile {
namespace {

std::optional<ip_address> from_sockaddr(const sockaddr* a) {
  if (a == nullptr) return std::nullopt;
  if (a->sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, a, sizeof in);
    return ip_address::v4(be32::from_raw(in.sin_addr.s_addr));
  }
  if (a->sa_family != AF_INET6) return std::nullopt;
  sockaddr_in6 in{};
  std::memcpy(&in, a, sizeof in);
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &in.sin6_addr, bytes.size());
  return ip_address::v6(bytes);
}

// ordinary() leaves out what nobody can answer to from elsewhere.
bool ordinary(const ip_address& a) noexcept {
  const auto& b = a.bytes;
  if (a.is_v4()) return b[12] != 0 && b[12] != 127 && !(b[12] == 169 && b[13] == 254);
  if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) return false;
  return std::any_of(b.begin(), b.end() - 1, [](std::uint8_t x) { return x != 0; });
}

// route_source() is what a socket would be given as its address; no packet is sent.
std::optional<ip_address> route_source(const std::string& interface, const ip_address& to) {
  const bool v4 = to.is_v4();
  const file_descriptor socket{::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  const int fd = socket.get();
  sockaddr_storage name{};
  socklen_t length;
  if (v4) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(9);
    in.sin_addr.s_addr = to.v4_raw().raw();
    std::memcpy(&name, &in, length = sizeof in);
  } else {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(9);
    std::memcpy(&in.sin6_addr, to.bytes.data(), sizeof in.sin6_addr);
    std::memcpy(&name, &in, length = sizeof in);
  }
  const bool bound =
      interface.empty() || ::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface.c_str(),
                                        static_cast<socklen_t>(interface.size() + 1)) == 0;
  if (!bound || ::connect(fd, reinterpret_cast<const sockaddr*>(&name), length) != 0)
    return std::nullopt;
  length = sizeof name;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return std::nullopt;
  return from_sockaddr(reinterpret_cast<const sockaddr*>(&name));
}

}  // namespace

std::vector<host_address> host_addresses() {
  std::vector<host_address> found;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return found;
  // Asked once per interface: thousands of VIPs may be on lo.
  std::map<std::string_view, int> indices;
  for (const ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
    const auto address = from_sockaddr(i->ifa_addr);
    if (!address) continue;
    const auto [at, unknown] = indices.try_emplace(i->ifa_name, 0);
    if (unknown) at->second = static_cast<int>(::if_nametoindex(i->ifa_name));
    found.push_back({*address, at->second});
  }
  ::freeifaddrs(all);
  return found;
}

std::optional<host_address> find_probe_source(
    const std::string& interface, const ip_address& backend, const ip_address& vip,
    const std::vector<host_address>& host, const std::function<bool(const ip_address&)>& usable) {
  const bool v4 = vip.is_v4();
  const auto fits = [&](const ip_address& a) {
    return a.is_v4() == v4 && ordinary(a) && usable(a);
  };
  const ip_address& to = backend.is_v4() == v4 ? backend : vip;
  for (const std::string& device : {interface, std::string{}}) {
    const auto found = route_source(device, to);
    if (!found || !fits(*found)) continue;
    const auto owned = std::find_if(host.begin(), host.end(),
                                    [&](const host_address& h) { return h.address == *found; });
    if (owned != host.end()) return *owned;
  }
  const auto index = static_cast<int>(::if_nametoindex(interface.c_str()));
  for (const bool own : {true, false})
    for (const host_address& h : host)
      if ((h.ifindex == index) == own && fits(h.address)) return h;
  return std::nullopt;
}

}  // namespace sluice::reconcile
