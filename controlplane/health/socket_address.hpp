// SPDX-License-Identifier: Apache-2.0
// An address and a port as the kernel takes them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"

namespace sluice::health {

struct socket_address {
  sockaddr_storage storage{};
  socklen_t length{};
};

// scope: the interface of a link-local address.
inline socket_address to_sockaddr(const ip_address& to, std::uint16_t port,
                                  std::uint32_t scope) noexcept {
  socket_address r;
  if (to.is_v4()) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = to.v4_raw().raw();
    std::memcpy(&r.storage, &a, sizeof a);
    r.length = sizeof a;
  } else {
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(port);
    a.sin6_scope_id = scope;
    std::memcpy(&a.sin6_addr, to.bytes.data(), sizeof a.sin6_addr);
    std::memcpy(&r.storage, &a, sizeof a);
    r.length = sizeof a;
  }
  return r;
}

}  // namespace sluice::health
