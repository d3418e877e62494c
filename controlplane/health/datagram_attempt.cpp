// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/datagram_attempt.hpp"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "controlplane/health/dns_check.hpp"
#include "controlplane/health/socket_address.hpp"

namespace sluice::health {
namespace {

// refused() words what ICMP has said.
probe_result refused(int error) {
  return error == ECONNREFUSED ? failed("port unreachable (ICMP)") : from_errno(error);
}

}  // namespace

datagram_attempt::~datagram_attempt() {
  if (fd_ < 0) return;
  tools_.loop.remove_fd(fd_);
  ::close(fd_);
}

std::optional<probe_result> datagram_attempt::start(done_callback done) {
  std::string request = target_.check.send;
  if (target_.check.kind == model::health_kind::dns) {
    // Nobody who does not see the query shall be able to answer it.
    if (::getrandom(&id_, sizeof id_, GRND_NONBLOCK) != sizeof id_) id_ = 1;
    request = dns_query(id_, target_.check.name, target_.check.record);
    if (request.empty()) return failed("the check's name is not one of the DNS");
  }
  const auto made = tools_.make_socket(target_);
  if (!made) return no_socket(target_, made.error().value());
  fd_ = made->fd;
  const socket_address to =
      to_sockaddr(made->to.value_or(target_.address), target_.port, made->scope);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to.storage), to.length) != 0 ||
      ::send(fd_, request.data(), request.size(), MSG_NOSIGNAL) < 0)
    return refused(errno);
  done_ = std::move(done);
  if (const std::error_code bad =
          tools_.loop.add_fd(fd_, EPOLLIN, [this](std::uint32_t) { on_event(); }))
    return probe_result{probe_outcome::shortage, error_text(bad.value())};
  return std::nullopt;
}

void datagram_attempt::on_event() {
  auto result = receive();
  if (!result) return;
  const done_callback done = std::move(done_);
  done(std::move(*result));
}

std::optional<probe_result> datagram_attempt::receive() {
  std::array<char, 4096> buffer;
  const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0) {
    if (errno == EINTR || errno == EAGAIN) return std::nullopt;
    return refused(errno);
  }
  return judge({buffer.data(), static_cast<std::size_t>(n)});
}

std::optional<probe_result> datagram_attempt::judge(std::string_view answer) const {
  if (target_.check.kind == model::health_kind::dns) {
    const dns_verdict v = judge_dns_reply(answer, id_, target_.check.name, target_.check.record);
    if (v.ours) return probe_result{v.ok ? probe_outcome::ok : probe_outcome::failed, v.text};
    return std::nullopt;
  }
  if (target_.check.answer == model::health_answer::text &&
      answer.find(target_.check.receive) == std::string_view::npos)
    return failed("the answer does not contain what is expected");
  return succeeded("answered");
}

probe_result datagram_attempt::timed_out() {
  if (auto result = receive()) return std::move(*result);
  if (target_.check.kind == model::health_kind::udp &&
      target_.check.answer == model::health_answer::none)
    return succeeded("not refused");
  return failed(timeout_text(target_) + " waiting for an answer");
}

}  // namespace sluice::health
