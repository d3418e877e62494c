// SPDX-License-Identifier: Apache-2.0
// kernel_tables: questions to the kernel over one rtnetlink socket, answered before the
// call returns (the kernel answers these from memory, in some microseconds).
// notification_socket: what the kernel says unasked.
// Threading: one thread at a time. Errors: constructors throw std::system_error.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "controlplane/neighbour/messages.hpp"

struct mnl_socket;

namespace sluice::neighbour {

class netlink_socket {
 public:
  netlink_socket();
  ~netlink_socket();
  netlink_socket(const netlink_socket&) = delete;
  netlink_socket& operator=(const netlink_socket&) = delete;

  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] mnl_socket* get() const noexcept { return socket_; }

 private:
  mnl_socket* socket_;
};

class kernel_tables {
 public:
  kernel_tables();

  // links() is every interface of the network namespace; nullopt: the kernel did not say.
  [[nodiscard]] std::optional<std::vector<link_info>> links();
  [[nodiscard]] route_info lookup(const ip_address& destination);
  // neighbour() is empty when the kernel has no such entry.
  [[nodiscard]] std::optional<neighbour_info> neighbour(int interface_index, const ip_address& a);
  // solicit() has the kernel resolve or confirm a neighbour; 0, or the errno of what failed.
  // Must not be used on NUD_PERMANENT entries: NTF_USE takes that state from them.
  int solicit(int interface_index, const ip_address& a);

 private:
  using message_callback = std::function<void(const nlmsghdr*)>;
  int request(nlmsghdr* message, const message_callback& on_message);

  netlink_socket socket_;
  std::vector<char> buffer_;
  std::uint32_t sequence_{0};
  bool may_use_netlink_{true};  // until EPERM
};

class notification_socket {
 public:
  notification_socket();

  enum class read_status : std::uint8_t { drained, more, overrun };
  // read() calls on_message for each message of up to some datagrams. overrun: some were lost.
  read_status read(const std::function<void(const nlmsghdr*)>& on_message);
  [[nodiscard]] int fd() const noexcept { return socket_.fd(); }

 private:
  netlink_socket socket_;
  std::vector<char> buffer_;
};

}  // namespace sluice::neighbour
