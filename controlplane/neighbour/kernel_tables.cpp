// SPDX-License-Identifier: Apache-2.0
#include "controlplane/neighbour/kernel_tables.hpp"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace sluice::neighbour {

namespace {

// The kernel fills dumps up to 32 KiB at a time when the reader has the room.
constexpr std::size_t buffer_size = 65536;
constexpr std::size_t request_size = 256;
constexpr int notification_buffer = 4 << 20;
constexpr int reads_per_turn = 64;
constexpr int groups[] = {RTNLGRP_LINK,       RTNLGRP_NEIGH,     RTNLGRP_IPV4_IFADDR,
                          RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_IFADDR,
                          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP};

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::system_category(), what);
}

struct callback_context {
  const std::function<void(const nlmsghdr*)>* fn;
  int verdict;
};

int run_callback(const nlmsghdr* message, void* data) {
  const auto* context = static_cast<const callback_context*>(data);
  if (*context->fn) (*context->fn)(message);
  return context->verdict;
}

// Without CAP_NET_ADMIN: a datagram that the neighbour throws away (RFC 863) makes the
// kernel resolve it just as well.
int send_discard(int interface_index, const ip_address& a) {
  const bool v4 = a.is_v4();
  const int fd = ::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  sockaddr_storage to{};
  socklen_t length;
  if (v4) {
    sockaddr_in s{};
    s.sin_family = AF_INET;
    s.sin_port = htons(9);
    s.sin_addr.s_addr = a.v4_raw().raw();
    std::memcpy(&to, &s, length = sizeof s);
  } else {
    sockaddr_in6 s{};
    s.sin6_family = AF_INET6;
    s.sin6_port = htons(9);
    std::memcpy(&s.sin6_addr, a.bytes.data(), 16);
    s.sin6_scope_id = static_cast<std::uint32_t>(interface_index);
    std::memcpy(&to, &s, length = sizeof s);
  }
  const auto n = ::sendto(fd, "", 0, MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), length);
  const int error = n < 0 ? errno : 0;
  ::close(fd);
  return error;
}

}  // namespace

netlink_socket::netlink_socket() : socket_{mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)} {
  if (socket_ == nullptr) fail("netlink socket");
  if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
    const int error = errno;
    mnl_socket_close(socket_);
    errno = error;
    fail("netlink bind");
  }
}

netlink_socket::~netlink_socket() {
  mnl_socket_close(socket_);
}

int netlink_socket::fd() const noexcept {
  return mnl_socket_get_fd(socket_);
}

kernel_tables::kernel_tables() : buffer_(buffer_size) {
  // Answers are there when send() returns; this only bounds what must not happen.
  const timeval limit{1, 0};
  if (::setsockopt(socket_.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
    fail("netlink receive timeout");
}

// request() sends one message and hands over what answers it; 0 or an errno.
int kernel_tables::request(nlmsghdr* message, const message_callback& on_message) {
  message->nlmsg_seq = ++sequence_;
  const bool dump = (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
  if (mnl_socket_sendto(socket_.get(), message, message->nlmsg_len) < 0) return errno;
  const unsigned port = mnl_socket_get_portid(socket_.get());
  callback_context context{&on_message, dump ? MNL_CB_OK : MNL_CB_STOP};
  for (;;) {
    const auto n = mnl_socket_recvfrom(socket_.get(), buffer_.data(), buffer_.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? ETIMEDOUT : errno;
    }
    const int r = mnl_cb_run(buffer_.data(), static_cast<std::size_t>(n), sequence_, port,
                             run_callback, &context);
    if (r == MNL_CB_STOP) return 0;
    // EPROTO: the late answer to a question that was given up.
    if (r == MNL_CB_ERROR && errno != EPROTO) return errno;
  }
}

std::optional<std::vector<link_info>> kernel_tables::links() {
  alignas(nlmsghdr) std::array<char, request_size> buffer;
  std::vector<link_info> all;
  // EINTR: the list changed while it was read.
  for (int attempt = 0; attempt < 5; ++attempt) {
    all.clear();
    const int error = request(build_link_dump(buffer.data()), [&](const nlmsghdr* message) {
      if (auto link = parse_link(message)) all.push_back(std::move(*link));
    });
    if (error == 0) return all;
    if (error != EINTR) break;
  }
  return std::nullopt;
}

route_info kernel_tables::lookup(const ip_address& destination) {
  alignas(nlmsghdr) std::array<char, request_size> buffer;
  std::optional<route_info> route;
  const int error = request(build_route_lookup(buffer.data(), destination),
                            [&](const nlmsghdr* message) { route = parse_route(message); });
  if (error == 0 && route) return *route;
  route_info none;
  none.error = error != 0 ? error : EBADMSG;
  return none;
}

std::optional<neighbour_info> kernel_tables::neighbour(int interface_index, const ip_address& a) {
  alignas(nlmsghdr) std::array<char, request_size> buffer;
  std::optional<neighbour_info> found;
  const int error = request(build_neighbour_get(buffer.data(), interface_index, a),
                            [&](const nlmsghdr* message) { found = parse_neighbour(message); });
  return error == 0 ? found : std::nullopt;
}

int kernel_tables::solicit(int interface_index, const ip_address& a) {
  if (may_use_netlink_) {
    alignas(nlmsghdr) std::array<char, request_size> buffer;
    const int error = request(build_neighbour_use(buffer.data(), interface_index, a), {});
    if (error != EPERM) return error;
    may_use_netlink_ = false;
  }
  return send_discard(interface_index, a);
}

notification_socket::notification_socket() : buffer_(buffer_size) {
  for (int group : groups)
    if (mnl_socket_setsockopt(socket_.get(), NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
      fail("netlink subscription");
  // FORCE needs CAP_NET_ADMIN; without it the default, and perhaps more overruns.
  if (::setsockopt(fd(), SOL_SOCKET, SO_RCVBUFFORCE, &notification_buffer,
                   sizeof notification_buffer) != 0)
    ::setsockopt(fd(), SOL_SOCKET, SO_RCVBUF, &notification_buffer, sizeof notification_buffer);
}

notification_socket::read_status notification_socket::read(
    const std::function<void(const nlmsghdr*)>& on_message) {
  for (int i = 0; i < reads_per_turn; ++i) {
    sockaddr_nl from{};
    socklen_t from_length = sizeof from;
    const auto n = ::recvfrom(fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC,
                              reinterpret_cast<sockaddr*>(&from), &from_length);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? read_status::drained : read_status::overrun;
    }
    if (static_cast<std::size_t>(n) > buffer_.size()) return read_status::overrun;
    if (from.nl_pid != 0) continue;  // another process, not the kernel
    // A cast as in mnl_cb_run(): netlink messages are aligned in the datagram.
    int left = static_cast<int>(n);
    const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
    while (mnl_nlmsg_ok(message, left)) {
      on_message(message);
      message = mnl_nlmsg_next(message, &left);
    }
  }
  return read_status::more;
}

}  // namespace sluice::neighbour
