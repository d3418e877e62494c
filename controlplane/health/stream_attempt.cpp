// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/stream_attempt.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "controlplane/health/socket_address.hpp"

namespace sluice::health {
namespace {

// A connect to a closed port of this host may be given that very port as its source, and
// then TCP connects to itself (simultaneous open, RFC 9293 section 3.5).
bool connected_to_itself(int fd, const socket_address& peer) noexcept {
  socket_address self;
  self.length = sizeof self.storage;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&self.storage), &self.length) == 0 &&
         self.length == peer.length && std::memcmp(&self.storage, &peer.storage, self.length) == 0;
}

}  // namespace

stream_attempt::~stream_attempt() {
  if (fd_ < 0) return;
  tools_.loop.remove_fd(fd_);
  ::close(fd_);
}

std::optional<probe_result> stream_attempt::start(done_callback done) {
  auto begun = start_conversation(target_, tools_.tls);
  if (begun.error) return std::move(begun.error);
  talk_ = std::move(begun.talk);
  const auto made = tools_.make_socket(target_);
  if (!made) return no_socket(target_, made.error().value());
  fd_ = made->fd;
  to_ = made->to.value_or(target_.address);
  scope_ = made->scope;

  const linger reset{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (!talk_) {
    // The SYN/ACK is the answer. Without our ACK the reset that follows removes the
    // half-open connection, and the server's program never has to accept it.
    const int off = 0;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
  }
  const socket_address to = to_sockaddr(to_, target_.port, scope_);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to.storage), to.length) == 0) {
    if (auto result = connected()) return result;
  } else if (errno != EINPROGRESS) {
    // Where the way is the caller's own and leads nowhere, it is not the backend's fault.
    const bool ours = made->to && (errno == ENETUNREACH || errno == ENETDOWN || errno == ENODEV);
    return ours ? probe_result{probe_outcome::shortage, error_text(errno)} : from_errno(errno);
  }
  done_ = std::move(done);
  watched_ = events();
  // epoll has its own limits (max_user_watches): a lack of ours too.
  if (const std::error_code bad =
          tools_.loop.add_fd(fd_, watched_, [this](std::uint32_t) { on_event(); }))
    return probe_result{probe_outcome::shortage, error_text(bad.value())};
  return std::nullopt;
}

std::uint32_t stream_attempt::events() const noexcept {
  if (connecting_) return EPOLLOUT;
  return sent_ < output_.size() ? EPOLLIN | EPOLLOUT : EPOLLIN;
}

probe_result stream_attempt::timed_out() {
  pollfd ready{fd_, connecting_ ? short{POLLOUT} : short{POLLIN}, 0};
  if (::poll(&ready, 1, 0) > 0)
    if (auto result = advance()) return std::move(*result);
  std::string text = timeout_text(target_);
  if (talk_) text += connecting_ ? " while connecting" : talk_->waiting();
  return failed(std::move(text));
}

void stream_attempt::on_event() {
  auto result = advance();
  if (!result) return;
  // The owner destroys this inside the call.
  const done_callback done = std::move(done_);
  done(std::move(*result));
}

// advance() does what the socket is ready for.
std::optional<probe_result> stream_attempt::advance() {
  std::optional<probe_result> result;
  if (connecting_) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
    result = error != 0 ? failed(error_text(error)) : connected();
  } else {
    result = receive();
    if (!result) result = send_output();
  }
  if (result || events() == watched_) return result;
  watched_ = events();
  if (const std::error_code bad = tools_.loop.modify_fd(fd_, watched_))
    return from_errno(bad.value());
  return std::nullopt;
}

std::optional<probe_result> stream_attempt::connected() {
  if (connected_to_itself(fd_, to_sockaddr(to_, target_.port, scope_)))
    return failed(error_text(ECONNREFUSED));
  if (!talk_) return succeeded("connected");
  connecting_ = false;
  if (auto result = talk_->begin()) return result;
  return send_output();
}

std::optional<probe_result> stream_attempt::send_output() {
  while (true) {
    if (sent_ == output_.size()) {
      output_ = talk_->take_output();
      sent_ = 0;
      if (output_.empty()) return std::nullopt;
    }
    const ssize_t n = ::send(fd_, output_.data() + sent_, output_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return std::nullopt;
      return from_errno(errno);
    }
    sent_ += static_cast<std::size_t>(n);
  }
}

std::optional<probe_result> stream_attempt::receive() {
  // One read per event: a target that floods us gets no more than its turn.
  std::array<char, 4096> buffer;
  const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0) {
    if (errno == EINTR || errno == EAGAIN) return std::nullopt;
    return from_errno(errno);
  }
  if (n == 0) return talk_->closed();
  return talk_->feed({buffer.data(), static_cast<std::size_t>(n)});
}

}  // namespace sluice::health
