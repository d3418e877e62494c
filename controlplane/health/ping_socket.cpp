// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/ping_socket.hpp"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "controlplane/health/icmp_echo.hpp"
#include "controlplane/health/socket_address.hpp"

namespace sluice::health {
namespace {

// Answers of 10,000 targets that come at once.
constexpr int receive_buffer = 8 << 20;
constexpr int most_per_event = 256;
// ICMP_FILTER of linux/icmp.h, which does not go together with the C library's headers.
constexpr int icmp_filter_option = 1;

ip_address address_of(const sockaddr_storage& from) noexcept {
  if (from.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &from, sizeof in);
    return ip_address::v4(be32::from_raw(in.sin_addr.s_addr));
  }
  sockaddr_in6 in{};
  std::memcpy(&in, &from, sizeof in);
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &in.sin6_addr, bytes.size());
  return ip_address::v6(bytes);
}

// ancillary_data: what goes with a message, beside its bytes.
class ancillary_data {
 public:
  explicit ancillary_data(msghdr& message) noexcept : message_{message} {}

  template <class Info>
  void put(int level, int type, const Info& info) noexcept {
    cmsghdr head{};
    head.cmsg_level = level;
    head.cmsg_type = type;
    head.cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(room_.data() + used_, &head, sizeof head);
    std::memcpy(room_.data() + used_ + CMSG_LEN(0), &info, sizeof info);
    used_ += CMSG_SPACE(sizeof info);
    message_.msg_control = room_.data();
    message_.msg_controllen = used_;
  }

 private:
  msghdr& message_;
  std::size_t used_{0};
  alignas(cmsghdr) std::array<char, 96> room_{};  // an address and a mark
};

// add_way() has a message sent as asked for.
void add_way(ancillary_data& c, bool v4, const ping_way& way) noexcept {
  const bool from = way.source && way.source->is_v4() == v4;
  if (way.mark != 0) c.put(SOL_SOCKET, SO_MARK, way.mark);
  if (!from && way.interface == 0) return;
  if (v4) {
    in_pktinfo info{};
    info.ipi_ifindex = static_cast<int>(way.interface);
    if (from) info.ipi_spec_dst.s_addr = way.source->v4_raw().raw();
    c.put(IPPROTO_IP, IP_PKTINFO, info);
  } else {
    in6_pktinfo info{};
    info.ipi6_ifindex = way.interface;
    if (from) std::memcpy(&info.ipi6_addr, way.source->bytes.data(), sizeof info.ipi6_addr);
    c.put(IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
}

bool is_ours(const ip_address& a) noexcept {
  const int fd = ::socket(a.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const socket_address name = to_sockaddr(a, 0, 0);
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&name.storage), name.length) == 0;
  if (fd >= 0) ::close(fd);
  return bound || fd < 0;
}

}  // namespace

ping_socket::~ping_socket() {
  loop_.cancel(deliver_timer_);
  if (fd_ < 0) return;
  loop_.remove_fd(fd_);
  ::close(fd_);
}

std::optional<probe_result> ping_socket::open() {
  const int family = v4_ ? AF_INET : AF_INET6;
  const int protocol = v4_ ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  raw_ = true;
  fd_ = ::socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd_ < 0 && (errno == EPERM || errno == EACCES)) {
    raw_ = false;
    fd_ = ::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  }
  if (fd_ < 0) {
    if (errno == EPERM || errno == EACCES)
      return failed("ICMP needs CAP_NET_RAW, or our group in net.ipv4.ping_group_range");
    return from_errno(errno);
  }
  if (raw_ && v4_) {
    const std::uint32_t filter = ~((1u << ICMP_ECHOREPLY) | (1u << ICMP_UNREACH));
    ::setsockopt(fd_, SOL_RAW, icmp_filter_option, &filter, sizeof filter);
  } else if (raw_) {
    icmp6_filter filter;
    std::memset(&filter, 0xff, sizeof filter);  // a bit set: blocked
    filter.icmp6_filt[ICMP6_ECHO_REPLY >> 5] &= ~(1u << (ICMP6_ECHO_REPLY & 31));
    filter.icmp6_filt[ICMP6_DST_UNREACH >> 5] &= ~(1u << (ICMP6_DST_UNREACH & 31));
    ::setsockopt(fd_, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
  }
  if (::setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  (void)!::getrandom(&secret_, sizeof secret_, GRND_NONBLOCK);
  (void)!::getrandom(&identifier_, sizeof identifier_, GRND_NONBLOCK);
  if (const std::error_code bad =
          loop_.add_fd(fd_, EPOLLIN, [this](std::uint32_t) { receive(); })) {
    ::close(std::exchange(fd_, -1));
    return probe_result{probe_outcome::shortage, error_text(bad.value())};
  }
  return std::nullopt;
}

std::uint64_t ping_socket::data_of(std::uint16_t sequence) const noexcept {
  std::uint64_t h = secret_ + sequence * 0x9e3779b97f4a7c15;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  return h ^ (h >> 33);
}

tl::expected<std::uint16_t, probe_result> ping_socket::send(const ip_address& to,
                                                            const ping_way& way,
                                                            answer_callback on_answer) {
  if (fd_ < 0)
    if (auto result = open()) return tl::unexpected{std::move(*result)};
  if (waiting_.size() >= 60'000)
    return tl::unexpected{probe_result{probe_outcome::shortage, "too many pings under way"}};
  while (waiting_.contains(++next_)) {
  }
  const std::uint16_t sequence = next_;
  std::string request = echo_request(v4_, {identifier_, sequence}, data_of(sequence));
  socket_address name = to_sockaddr(to, 0, way.interface);
  iovec part{request.data(), request.size()};
  msghdr message{};
  message.msg_name = &name.storage;
  message.msg_namelen = name.length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ancillary_data more{message};
  add_way(more, v4_, way);
  if (::sendmsg(fd_, &message, MSG_NOSIGNAL) < 0) {
    // An interface of ours that is gone says nothing about the target.
    if (errno == EAGAIN || (way.interface != 0 && (errno == ENODEV || errno == ENXIO)))
      return tl::unexpected{probe_result{probe_outcome::shortage, error_text(errno)}};
    const int error = errno;
    // The kernel has several words for a source that is not ours.
    if (way.source && !is_ours(*way.source)) return tl::unexpected{source_not_ours()};
    return tl::unexpected{from_errno(error)};
  }
  waiting_.emplace(sequence, waiting{to, std::move(on_answer)});
  return sequence;
}

void ping_socket::receive() {
  collect();
  deliver();
}

std::optional<probe_result> ping_socket::late_answer(std::uint16_t sequence) {
  collect();
  // The others are told by the loop: whoever asks here must not be surprised by it.
  if (!ready_.empty() && deliver_timer_ == 0)
    deliver_timer_ = loop_.call_after({}, [this] {
      deliver_timer_ = 0;
      deliver();
    });
  const auto found = waiting_.find(sequence);
  return found == waiting_.end() ? std::nullopt : std::exchange(found->second.result, {});
}

void ping_socket::deliver() {
  // Gone from the lists before anybody is told: a callback may send the next one.
  for (const std::uint16_t sequence : std::exchange(ready_, {})) {
    const auto found = waiting_.find(sequence);
    if (found == waiting_.end() || !found->second.result) continue;
    waiting w = std::move(found->second);
    waiting_.erase(found);
    w.on_answer(std::move(*w.result));
  }
}

// collect() reads what has arrived.
void ping_socket::collect() {
  std::array<char, 2048> buffer;
  for (int i = 0; i < most_per_event && fd_ >= 0; ++i) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t n = ::recvfrom(fd_, buffer.data(), buffer.size(), 0,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    if (n < 0) {
      if (errno == EINTR) continue;
      // An ICMP error that the kernel keeps for the socket concerns any of them.
      if (errno == EAGAIN) return;
      continue;
    }
    const auto news = read_echo(v4_, {buffer.data(), static_cast<std::size_t>(n)}, raw_ && v4_);
    if (!news || (raw_ && news->id.identifier != identifier_)) continue;
    const auto found = waiting_.find(news->id.sequence);
    if (found == waiting_.end()) continue;
    const bool ours = news->error.empty() ? news->data == data_of(news->id.sequence) &&
                                                address_of(from) == found->second.to
                                          : news->quoted == found->second.to;
    if (!ours || found->second.result) continue;
    found->second.result =
        news->error.empty() ? succeeded("echo reply") : failed(news->error + " (ICMP)");
    ready_.push_back(news->id.sequence);
  }
}

}  // namespace sluice::health
