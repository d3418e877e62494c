// SPDX-License-Identifier: Apache-2.0
// interface_addresses: single addresses (/32, /128) on one interface of the kernel. Answered
// before the call returns. Threading: one thread at a time.
#pragma once

#include <set>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/neighbour/kernel_tables.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::neighbour {

class interface_addresses {
 public:
  // Throws std::system_error when there is no netlink.
  explicit interface_addresses(std::string interface);

  // present() is what is there now, whoever put it there.
  [[nodiscard]] tl::expected<std::set<ip_address>, std::string> present();
  // add() and remove() return what is wrong; nothing, too, when it was so already. The host
  // takes no IPv6 address of these as the source of what it sends.
  [[nodiscard]] std::string add(const ip_address& a);
  [[nodiscard]] std::string remove(const ip_address& a);

 private:
  [[nodiscard]] std::string change(const ip_address& a, int type, int flags, int harmless);

  std::string interface_;
  netlink_socket socket_;
};

}  // namespace sluice::neighbour
