// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/probe.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "controlplane/health/socket_address.hpp"

namespace sluice::health {

namespace {

probe_result failed(std::string text) {
  return {probe_outcome::failed, std::move(text)};
}

std::string error_text(int error) {
  std::string text = std::system_category().message(error);
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

// A lack of ours says nothing about the target. EADDRNOTAVAIL is not in the list: it also
// means that no local address can reach the target, which is as bad as no route.
bool is_shortage(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

probe_result from_errno(int error) {
  return {is_shortage(error) ? probe_outcome::shortage : probe_outcome::failed, error_text(error)};
}

// A connect to a closed port of this host may be given that very port as its source, and
// then TCP connects to itself (simultaneous open, RFC 9293 section 3.5).
bool connected_to_itself(int fd, const socket_address& peer) noexcept {
  socket_address self;
  self.length = sizeof self.storage;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&self.storage), &self.length) == 0 &&
         self.length == peer.length && std::memcmp(&self.storage, &peer.storage, self.length) == 0;
}

bool printable(std::string_view s) noexcept {
  return std::ranges::all_of(s, [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string literal_host(const ip_address& a) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (a.is_v4()) {
    ::inet_ntop(AF_INET, a.bytes.data() + 12, text.data(), text.size());
    return text.data();
  }
  ::inet_ntop(AF_INET6, a.bytes.data(), text.data(), text.size());
  // append: gcc 12 warns falsely (-Wrestrict) about a literal + string.
  return std::string{"["}.append(text.data()).append("]");
}

}  // namespace

std::optional<std::string> http_request(const target& t) {
  const std::string& path = t.check.path;
  if (path.empty() || path[0] != '/' || !printable(path) || !printable(t.check.host))
    return std::nullopt;
  std::string host = t.check.host;
  if (host.empty()) {
    host = literal_host(t.address);
    if (t.port != 80) host.append(":").append(std::to_string(t.port));
  }
  return std::string{"GET "}
      .append(path)
      .append(" HTTP/1.1\r\nHost: ")
      .append(host)
      .append("\r\nUser-Agent: sluice-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
}

std::optional<probe_result> probe::start(const target& t, const socket_factory& make,
                                         done_callback done) {
  stop();
  target_ = &t;
  if (t.check.kind == model::health_kind::http) {
    auto request = http_request(t);
    if (!request) return failed("the check's path or host is not valid in an HTTP request");
    request_ = std::move(*request);
  }
  const auto made = make(t);
  if (!made) {
    // Configured, and not there: nothing that waiting would mend soon.
    if (made.error().value() == EADDRNOTAVAIL && t.check.source)
      return failed("the check's source address is not one of this host's");
    return from_errno(made.error().value());
  }
  fd_ = made->fd;
  to_ = made->to.value_or(t.address);
  scope_ = made->scope;

  const linger reset{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (t.check.kind == model::health_kind::tcp) {
    // The SYN/ACK is the answer. Without our ACK the reset that follows removes the
    // half-open connection, and the server's program never has to accept it.
    const int off = 0;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
  }
  phase_ = phase::connecting;
  sent_ = 0;
  parser_ = {};
  const socket_address to = to_sockaddr(to_, t.port, scope_);
  std::optional<probe_result> result;
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to.storage), to.length) == 0) {
    result = connected();
  } else if (errno != EINPROGRESS) {
    // Where the way is the caller's own and leads nowhere, it is not the backend's fault.
    const bool ours = made->to && (errno == ENETUNREACH || errno == ENETDOWN || errno == ENODEV);
    result = ours ? probe_result{probe_outcome::shortage, error_text(errno)} : from_errno(errno);
  }
  if (!result) {
    done_ = std::move(done);
    const std::error_code bad = loop_.add_fd(fd_, phase_ == phase::receiving ? EPOLLIN : EPOLLOUT,
                                             [this](std::uint32_t) { on_event(); });
    // epoll has its own limits (max_user_watches): a lack of ours too.
    if (bad) result = probe_result{probe_outcome::shortage, error_text(bad.value())};
  }
  if (result) stop();
  return result;
}

void probe::stop() noexcept {
  if (fd_ < 0) return;
  loop_.remove_fd(fd_);
  ::close(fd_);
  fd_ = -1;
}

probe_result probe::timed_out() {
  pollfd ready{fd_, phase_ == phase::receiving ? short{POLLIN} : short{POLLOUT}, 0};
  if (::poll(&ready, 1, 0) > 0) {
    if (auto result = advance()) {
      stop();
      return std::move(*result);
    }
  }
  std::string text = "timeout after " + std::to_string(target_->check.timeout.count()) + " ms";
  if (target_->check.kind == model::health_kind::http)
    text += phase_ == phase::connecting ? " while connecting"
            : parser_.started()         ? " within the response"
                                        : " waiting for a response";
  stop();
  return failed(std::move(text));
}

void probe::on_event() {
  auto result = advance();
  if (!result) return;
  stop();
  // The owner may destroy this probe inside the call.
  const done_callback done = std::move(done_);
  done(std::move(*result));
}

// advance() does what the socket is ready for.
std::optional<probe_result> probe::advance() {
  if (phase_ == phase::receiving) return receive();
  std::optional<probe_result> result;
  if (phase_ == phase::connecting) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
    result = error != 0 ? failed(error_text(error)) : connected();
  } else {
    result = send_request();
  }
  if (!result && phase_ == phase::receiving)
    if (const std::error_code bad = loop_.modify_fd(fd_, EPOLLIN)) result = from_errno(bad.value());
  return result;
}

std::optional<probe_result> probe::connected() {
  if (connected_to_itself(fd_, to_sockaddr(to_, target_->port, scope_)))
    return failed(error_text(ECONNREFUSED));
  if (target_->check.kind == model::health_kind::tcp)
    return probe_result{probe_outcome::ok, "connected"};
  phase_ = phase::sending;
  return send_request();
}

std::optional<probe_result> probe::send_request() {
  while (sent_ < request_.size()) {
    const ssize_t n = ::send(fd_, request_.data() + sent_, request_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return std::nullopt;
      return from_errno(errno);
    }
    sent_ += static_cast<std::size_t>(n);
  }
  phase_ = phase::receiving;
  return std::nullopt;
}

std::optional<probe_result> probe::receive() {
  // One read per event: a target that floods us gets no more than its turn.
  std::array<char, 4096> buffer;
  const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0) {
    if (errno == EINTR || errno == EAGAIN) return std::nullopt;
    return from_errno(errno);
  }
  if (n == 0)
    return failed(parser_.started() ? "connection closed within the status line"
                                    : "connection closed without a response");
  switch (parser_.feed({buffer.data(), static_cast<std::size_t>(n)})) {
    case http_status_parser::progress::need_more:
      return std::nullopt;
    case http_status_parser::progress::bad:
      return failed("bad response: " + std::string{parser_.error()});
    case http_status_parser::progress::done:
      break;
  }
  return judge_status();
}

probe_result probe::judge_status() const {
  const unsigned status = parser_.status();
  const bool ok = status >= target_->check.expect_first && status <= target_->check.expect_last;
  return {ok ? probe_outcome::ok : probe_outcome::failed, "HTTP " + std::to_string(status)};
}

}  // namespace sluice::health
