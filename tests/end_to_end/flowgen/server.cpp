// SPDX-License-Identifier: Apache-2.0
#include "tests/end_to_end/flowgen/server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "tests/end_to_end/flowgen/sockets.hpp"

namespace sluice::flowgen {
namespace {

constexpr std::size_t max_line = 4096;

enum class kind : std::uint8_t { listener, datagram, stream };

struct peer {
  kind what{};
  std::string line;
};

void set(int fd, int level, int option) {
  const int one = 1;
  setsockopt(fd, level, option, &one, sizeof(one));
}

int listen_on(const endpoint& where, int type) {
  const int fd = socket(where.address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::runtime_error(std::string{"socket: "} + std::strerror(errno));
  set(fd, SOL_SOCKET, SO_REUSEADDR);
  const bool v6 = where.address.ss_family == AF_INET6;
  if (v6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  if (type == SOCK_DGRAM)
    set(fd, v6 ? int{IPPROTO_IPV6} : int{IPPROTO_IP}, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&where.address), where.size) != 0 ||
      (type == SOCK_STREAM && listen(fd, 4096) != 0))
    throw std::runtime_error(where.text + ": " + std::strerror(errno));
  return fd;
}

// answer_datagrams() sends the control message that it got back: it holds the address that
// was asked, which the answer must come from.
void answer_datagrams(int fd, const std::string& name) {
  std::array<char, 2048> data;
  std::array<char, 256> control;
  sockaddr_storage from{};
  for (int i = 0; i < 64; ++i) {
    iovec part{data.data(), data.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof(from);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = recvmsg(fd, &message, 0);
    if (n < 0) return;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
      // The interface is where it came in (a tunnel, perhaps), not where the answer goes.
      if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        auto* info = reinterpret_cast<in_pktinfo*>(CMSG_DATA(c));
        info->ipi_ifindex = 0;
        info->ipi_spec_dst = info->ipi_addr;
      } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        reinterpret_cast<in6_pktinfo*>(CMSG_DATA(c))->ipi6_ifindex = 0;
      }
    }
    std::string reply = name + " " + std::string{data.data(), static_cast<std::size_t>(n)};
    part = {reply.data(), reply.size()};
    sendmsg(fd, &message, MSG_NOSIGNAL);
  }
}

// answer_lines() returns false when the connection is over.
bool answer_lines(int fd, peer& p, const std::string& name) {
  std::array<char, 16384> data;
  const ssize_t n = recv(fd, data.data(), data.size(), 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  p.line.append(data.data(), static_cast<std::size_t>(n));
  std::string reply;
  std::size_t begin = 0;
  for (auto end = p.line.find('\n'); end != std::string::npos; end = p.line.find('\n', begin)) {
    reply += name + " " + p.line.substr(begin, end + 1 - begin);
    begin = end + 1;
  }
  p.line.erase(0, begin);
  if (p.line.size() > max_line) return false;
  return send(fd, reply.data(), reply.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(reply.size());
}

}  // namespace

void serve(const std::vector<endpoint>& listen, const std::string& name) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) throw std::runtime_error(std::string{"epoll_create1: "} + std::strerror(errno));
  std::unordered_map<int, peer> peers;
  const auto add = [&](int fd, kind what) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    peers[fd] = {what, {}};
  };
  for (const auto& where : listen) {
    add(listen_on(where, SOCK_STREAM), kind::listener);
    add(listen_on(where, SOCK_DGRAM), kind::datagram);
  }
  std::puts("ready");
  std::fflush(stdout);
  std::array<epoll_event, 256> events;
  while (!stop_requested()) {
    const int n = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 200);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      peer& p = peers[fd];
      if (p.what == kind::datagram) {
        answer_datagrams(fd, name);
      } else if (p.what == kind::listener) {
        int accepted = 0;
        while ((accepted = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
          set(accepted, IPPROTO_TCP, TCP_NODELAY);
          add(accepted, kind::stream);
        }
      } else if (!answer_lines(fd, p, name)) {
        peers.erase(fd);
        close(fd);
      }
    }
  }
  for (const auto& [fd, p] : peers) close(fd);
  close(epoll);
}

}  // namespace sluice::flowgen
