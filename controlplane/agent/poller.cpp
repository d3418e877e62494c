// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/poller.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "controlplane/agent/words.hpp"
#include "dataplane/abi/fnv.hpp"

namespace sluice::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds first_within{200};

std::string words_of(int error) {
  return std::system_category().message(error);
}

int connect_to(int fd, const ip_address& to, std::uint16_t port) noexcept {
  if (to.is_v4()) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = to.v4_raw().raw();
    return ::connect(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a);
  }
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  a.sin6_port = htons(port);
  std::memcpy(&a.sin6_addr, to.bytes.data(), sizeof a.sin6_addr);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a);
}

}  // namespace

struct poller::entry {
  explicit entry(target t) : what{std::move(t)} {}

  const target what;
  int fd{-1};
  bool connected{false};
  bool removed{false};
  std::size_t sent{0};
  std::string line;
  event_loop::timer_id timer{0};  // of the next start, or of the timeout
  event_loop::time_point due{};   // when this round should have started
};

std::size_t target_hash::operator()(const target& t) const noexcept {
  fnv1a digest;
  digest.add_object(t.address.bytes);
  digest.add(std::uint64_t{t.check.port});
  digest.add(std::string_view{t.check.send});
  digest.add(static_cast<std::uint64_t>(t.check.interval.count()));
  digest.add(static_cast<std::uint64_t>(t.check.timeout.count()));
  const std::uint64_t h = digest.value();
  return (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
}

poller::poller(event_loop& loop, line_callback on_line, failure_callback on_failure)
    : loop_{loop}, on_line_{std::move(on_line)}, on_failure_{std::move(on_failure)} {}

poller::~poller() {
  for (auto& [what, e] : entries_) close(*e);
}

void poller::set_targets(const std::vector<target>& wanted) {
  std::unordered_map<target, entry_ptr, target_hash> next;
  next.reserve(wanted.size());
  const auto now = event_loop::now();
  for (const target& t : wanted) {
    if (t.check.off() || next.contains(t)) continue;
    if (const auto it = entries_.find(t); it != entries_.end()) {
      next.insert(entries_.extract(it));
      continue;
    }
    const auto e = std::make_shared<entry>(t);
    // Spread over the window, as those that were added together would else ask together.
    const auto window = std::max(std::min(t.check.interval, first_within), milliseconds{1});
    e->due = now + milliseconds{(target_hash{}(t) >> 32) % static_cast<unsigned>(window.count())};
    e->timer = loop_.call_at(e->due, [this, e] { start(e); });
    next.emplace(t, e);
  }
  for (auto& [what, e] : entries_) {
    e->removed = true;
    close(*e);
  }
  entries_ = std::move(next);
}

void poller::close(entry& e) noexcept {
  loop_.cancel(std::exchange(e.timer, 0));
  if (e.fd < 0) return;
  loop_.remove_fd(e.fd);
  ::close(std::exchange(e.fd, -1));
}

void poller::start(const entry_ptr& e) {
  e->timer = 0;
  e->connected = false;
  e->sent = 0;
  e->line.clear();
  const bool v4 = e->what.address.is_v4();
  e->fd = ::socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (e->fd < 0) return finish(e, nullptr, words_of(errno));
  // Reset, not closed in order: thousands of agents must not leave thousands of TIME_WAIT entries.
  const linger reset{1, 0};
  ::setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  if (connect_to(e->fd, e->what.address, e->what.check.port) != 0 && errno != EINPROGRESS)
    return finish(e, nullptr, words_of(errno));
  if (const auto bad = loop_.add_fd(e->fd, EPOLLOUT, [this, e](std::uint32_t) { on_event(e); }))
    return finish(e, nullptr, bad.message());
  e->timer = loop_.call_after(e->what.check.timeout, [this, e] {
    e->timer = 0;
    finish(e, nullptr, e->connected ? "no line in time" : "no connection in time");
  });
}

void poller::on_event(const entry_ptr& e) {
  if (!e->connected) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return finish(e, nullptr, words_of(error));
    e->connected = true;
  }
  if (e->sent < e->what.check.send.size()) return send(e);
  receive(e);
}

void poller::send(const entry_ptr& e) {
  const std::string& all = e->what.check.send;
  const ssize_t n = ::send(e->fd, all.data() + e->sent, all.size() - e->sent, MSG_NOSIGNAL);
  if (n < 0) {
    if (errno != EINTR && errno != EAGAIN) finish(e, nullptr, words_of(errno));
    return;
  }
  e->sent += static_cast<std::size_t>(n);
  if (e->sent == all.size())
    if (const auto bad = loop_.modify_fd(e->fd, EPOLLIN)) finish(e, nullptr, bad.message());
}

void poller::receive(const entry_ptr& e) {
  std::array<char, longest_line> buffer;
  const ssize_t n = ::recv(e->fd, buffer.data(), buffer.size() - e->line.size(), 0);
  if (n < 0) {
    if (errno != EINTR && errno != EAGAIN) return finish(e, nullptr, words_of(errno));
    // Nothing was to be sent: there may be nothing yet to be read.
    if (const auto bad = loop_.modify_fd(e->fd, EPOLLIN)) finish(e, nullptr, bad.message());
    return;
  }
  e->line.append(buffer.data(), static_cast<std::size_t>(n));
  const std::size_t end = e->line.find_first_of("\r\n");
  if (end != std::string::npos) {
    e->line.resize(end);
  } else if (n > 0 && e->line.size() < longest_line) {
    // It may come in pieces.
    if (const auto bad = loop_.modify_fd(e->fd, EPOLLIN)) finish(e, nullptr, bad.message());
    return;
  } else if (n > 0) {
    return finish(e, nullptr, "no line within " + std::to_string(longest_line) + " bytes");
  }
  // One that closes without an end of line has said all it wants to.
  if (e->line.empty()) return finish(e, nullptr, "an empty answer");
  const std::string line = std::exchange(e->line, {});
  finish(e, &line, {});
}

void poller::finish(const entry_ptr& e, const std::string* line, const std::string& why) {
  // `e` may be a reference into the callback that is removed here.
  const entry_ptr keep = e;
  close(*keep);
  const auto now = event_loop::now();
  keep->due = std::max(keep->due + keep->what.check.interval, now + milliseconds{1});
  keep->timer = loop_.call_at(keep->due, [this, keep] { start(keep); });
  if (line)
    on_line_(keep->what, *line);
  else
    on_failure_(keep->what, why);
}

}  // namespace sluice::agent
