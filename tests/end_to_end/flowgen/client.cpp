// SPDX-License-Identifier: Apache-2.0
#include "tests/end_to_end/flowgen/client.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>

#include "tests/end_to_end/flowgen/sockets.hpp"

namespace sluice::flowgen {
namespace {

constexpr std::int64_t ns_per_ms = 1'000'000;
constexpr std::int64_t ns_per_s = 1'000'000'000;

const char* kind_of(int error) {
  switch (error) {
    case ECONNREFUSED:
      return "refused";
    case ECONNRESET:
    case EPIPE:
      return "reset";
    case ETIMEDOUT:
      return "timeout";
    default:
      return "error";
  }
}

}  // namespace

client::client(client_options options) : options_{std::move(options)} {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) throw std::runtime_error(std::string{"epoll_create1: "} + std::strerror(errno));
  if (!options_.log.empty()) {
    log_ = std::fopen(options_.log.c_str(), "we");
    if (!log_) throw std::runtime_error(options_.log + ": " + std::strerror(errno));
  }
}

client::~client() {
  for (auto& c : connections_)
    if (c.fd >= 0) ::close(c.fd);
  if (epoll_ >= 0) ::close(epoll_);
  if (log_) std::fclose(log_);
}

report client::run() {
  const std::size_t total = options_.connections + options_.downloads;
  connections_.resize(total);
  interval_ = options_.rate > 0
                  ? static_cast<std::int64_t>(options_.connections / options_.rate * ns_per_s)
                  : 0;
  begin_ = now_ns();
  end_ = options_.duration > 0
             ? begin_ + static_cast<std::int64_t>(options_.duration * static_cast<double>(ns_per_s))
             : INT64_MAX;
  report_.started = unix_now();
  for (std::size_t i = 0; i < total; ++i) {
    connection& c = connections_[i];
    c.index = i;
    c.is_download = i >= options_.connections;
    // Spread over the interval, so that the rate is steady from the start.
    c.due = begin_;
    if (!c.is_download)
      c.due += interval_ * static_cast<std::int64_t>(i) /
               static_cast<std::int64_t>(options_.connections);
    arm(c, c.due);
  }
  std::array<epoll_event, 256> events;
  while (true) {
    if (stop_requested()) stopping_ = true;
    const std::int64_t now = now_ns();
    while (!timers_.empty() && timers_.top().at <= now) {
      const timer t = timers_.top();
      timers_.pop();
      connection& c = connections_[t.index];
      if (c.timer == t.number) on_timer(c);
    }
    const bool downloading =
        std::any_of(connections_.begin() + static_cast<std::ptrdiff_t>(options_.connections),
                    connections_.end(), [](const connection& c) { return !c.downloaded; });
    if (under_way_ == 0 && !more_to_send() && (!downloading || stopping_)) break;
    // Short enough to notice a signal, which does not interrupt what was begun before it.
    int wait = 100;
    if (!timers_.empty()) {
      const std::int64_t left = (timers_.top().at - now_ns() + ns_per_ms - 1) / ns_per_ms;
      wait = static_cast<int>(std::clamp<std::int64_t>(left, 0, 100));
    }
    const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait);
    for (int i = 0; i < n; ++i)
      on_event(connections_[events[static_cast<std::size_t>(i)].data.u64],
               events[static_cast<std::size_t>(i)].events);
  }
  report_.seconds = static_cast<double>(now_ns() - begin_) / ns_per_s;
  for (auto& c : connections_) {
    if (c.is_download) {
      if (!c.downloaded && c.result.error.empty()) c.result.error = "stopped";
      c.result.local = c.local;
      c.result.longest_gap_ms = static_cast<double>(c.longest_gap) / ns_per_ms;
      report_.downloads.push_back(c.result);
    } else {
      report_.gaps_ms.push_back(static_cast<double>(c.longest_gap) / ns_per_ms);
    }
  }
  return std::move(report_);
}

bool client::more_to_send() const {
  if (stopping_ || options_.connections == 0 || now_ns() >= end_) return false;
  return options_.requests == 0 || issued_ < options_.requests;
}

void client::arm(connection& c, std::int64_t at) {
  c.timer = next_timer_++;
  timers_.push({at, c.index, c.timer});
}

void client::on_timer(connection& c) {
  if (c.now == state::connecting || c.now == state::waiting)
    fail(c, "timeout");
  else
    begin_request(c);
}

void client::begin_request(connection& c) {
  if (c.is_download) {
    if (c.downloaded || stopping_) return;
  } else {
    if (!more_to_send()) return;
    ++issued_;
  }
  ++under_way_;
  c.sent = now_ns();
  const std::int64_t limit = c.is_download ? options_.download_timeout.count() * ns_per_s
                                           : options_.timeout.count() * ns_per_ms;
  if (c.now == state::closed && !open(c)) return;
  arm(c, c.sent + limit);
  if (c.now == state::ready) send_request(c);
}

bool client::open(connection& c) {
  const int type = options_.protocol == mode::udp ? SOCK_DGRAM : SOCK_STREAM;
  const auto& target = options_.target;
  c.fd = socket(target.address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c.fd < 0) {
    fail(c, "error");
    return false;
  }
  const int one = 1;
  if (type == SOCK_STREAM) setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (!options_.source.empty() || options_.local_port) {
    const std::uint16_t port =
        options_.local_port ? static_cast<std::uint16_t>(options_.local_port + c.index) : 0;
    std::string source = options_.source;
    if (source.empty()) source = target.address.ss_family == AF_INET ? "0.0.0.0" : "::";
    const endpoint local = parse_address(source, port);
    setsockopt(c.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(c.fd, reinterpret_cast<const sockaddr*>(&local.address), local.size) != 0) {
      fail(c, "error");
      return false;
    }
  }
  c.backend.clear();
  c.line.clear();
  c.requests = 0;
  c.last_answer = 0;
  c.response = {};
  c.now = state::connecting;
  if (connect(c.fd, reinterpret_cast<const sockaddr*>(&target.address), target.size) != 0 &&
      errno != EINPROGRESS) {
    fail(c, kind_of(errno));
    return false;
  }
  sockaddr_storage local{};
  socklen_t size = sizeof(local);
  if (getsockname(c.fd, reinterpret_cast<sockaddr*>(&local), &size) == 0) c.local = to_text(local);
  epoll_event event{};
  event.data.u64 = c.index;
  event.events = EPOLLIN;
  if (type == SOCK_DGRAM) {
    c.now = state::ready;
    ++report_.connections_opened;
  } else {
    event.events = EPOLLOUT;
  }
  epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event);
  return true;
}

void client::watch(connection& c, std::uint32_t events) {
  epoll_event event{};
  event.data.u64 = c.index;
  event.events = events;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
}

void client::on_event(connection& c, std::uint32_t events) {
  if (c.fd < 0) return;  // closed by an event before this one
  if (c.now == state::connecting) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) return fail(c, kind_of(error));
    if (!(events & EPOLLOUT)) return;
    ++report_.connections_opened;
    c.now = state::ready;
    watch(c, EPOLLIN);
    return send_request(c);
  }
  receive(c);
}

void client::send_request(connection& c) {
  std::string text;
  ++c.sequence;
  if (options_.protocol == mode::http) {
    text = "GET " + (c.is_download ? options_.download_path : options_.path) +
           " HTTP/1.1\r\nHost: sluice.test\r\nUser-Agent: flowgen\r\n\r\n";
  } else {
    text = std::to_string(c.sequence) + "\n";
  }
  c.now = state::waiting;
  if (c.is_download) c.last_answer = now_ns();
  // A request is far smaller than a socket's buffer.
  const ssize_t sent = send(c.fd, text.data(), text.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(text.size())) fail(c, sent < 0 ? kind_of(errno) : "error");
}

void client::receive(connection& c) {
  static std::array<char, 65536> buffer;
  for (int rounds = 0; rounds < 8; ++rounds) {
    const ssize_t n = recv(c.fd, buffer.data(), buffer.size(), 0);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      return fail(c, kind_of(errno));
    }
    if (n == 0 && options_.protocol != mode::udp) return fail(c, "closed");
    if (!take(c, {buffer.data(), static_cast<std::size_t>(n)})) return;
  }
}

// take() returns false when nothing more is to be read now.
bool client::take(connection& c, std::string_view data) {
  if (options_.protocol != mode::http) return take_line(c, data);
  if (c.now != state::waiting) {
    fail(c, "response");
    return false;
  }
  if (c.is_download) {
    const std::int64_t now = now_ns();
    c.longest_gap = std::max(c.longest_gap, now - c.last_answer);
    c.last_answer = now;
  }
  const auto done = c.response.feed(data, [&c](std::string_view body) {
    if (!c.is_download) return;
    c.result.crc32 = static_cast<std::uint32_t>(crc32(c.result.crc32,
                                                      reinterpret_cast<const Bytef*>(body.data()),
                                                      static_cast<uInt>(body.size())));
    c.result.bytes += body.size();
  });
  if (done == http_response::progress::incomplete) return true;
  if (done == http_response::progress::broken) {
    fail(c, "response");
    return false;
  }
  if (c.response.status() != 200) {
    fail(c, "status");
    return false;
  }
  const bool close = c.response.close();
  answered(c, c.response.backend());
  if (close && c.fd >= 0) close_connection(c);
  return c.fd >= 0;
}

bool client::take_line(connection& c, std::string_view data) {
  if (options_.protocol == mode::udp) c.line.clear();
  c.line.append(data);
  const auto end = c.line.find('\n');
  if (end == std::string::npos) return true;
  const auto space = c.line.find(' ');
  std::uint64_t number = 0;
  if (space < end) std::from_chars(c.line.data() + space + 1, c.line.data() + end, number);
  const std::string backend = c.line.substr(0, std::min(space, end));
  c.line.erase(0, end + 1);
  if (c.now != state::waiting || number != c.sequence) {
    // A datagram that comes after its timeout is no error; in a stream it is.
    if (options_.protocol == mode::udp) return true;
    fail(c, "response");
    return false;
  }
  answered(c, backend);
  return c.fd >= 0;
}

void client::answered(connection& c, const std::string& backend) {
  const std::int64_t now = now_ns();
  --under_way_;
  c.now = state::ready;
  if (c.is_download) {
    c.result.complete = true;
    c.downloaded = true;
    c.result.backend = backend;
    c.result.seconds = static_cast<double>(now - c.sent) / ns_per_s;
    c.timer = 0;
    return close_connection(c);
  }
  ++report_.requests_ok;
  report_.latencies_us.push_back(static_cast<std::uint64_t>(now - c.sent) / 1000);
  auto& count = report_.backends[backend];
  ++count.requests;
  if (c.requests++ == 0) ++count.connections;
  if (!c.backend.empty() && c.backend != backend) ++report_.backend_changes;
  c.backend = backend;
  if (c.last_answer) c.longest_gap = std::max(c.longest_gap, now - c.last_answer);
  c.last_answer = now;
  write_log(c, "ok");
  if (c.sequence == 1 && ++answered_first_ == options_.connections)
    std::fputs("flowgen: every connection has been answered\n", stderr);
  if (options_.requests_per_connection && c.requests >= options_.requests_per_connection)
    close_connection(c);
  schedule_next(c);
}

void client::schedule_next(connection& c) {
  const std::int64_t now = now_ns();
  // What could not be sent in time is not made up for: that would be a burst.
  c.due = std::max(c.due + interval_, interval_ ? now - interval_ : now);
  arm(c, std::max(c.due, now));
}

void client::fail(connection& c, const char* kind) {
  const bool in_request = c.fd < 0 || c.now != state::ready;
  const bool established = c.fd >= 0 && c.now != state::connecting;
  if (established && (!std::strcmp(kind, "reset") || !std::strcmp(kind, "closed")))
    ++report_.connections_broken;
  if (in_request) {
    --under_way_;
    if (c.is_download) {
      c.result.error = kind;
      c.downloaded = true;
    } else {
      ++report_.requests_failed;
      ++report_.failures_by_kind[kind];
      if (report_.failures.size() < report::max_failures)
        report_.failures.push_back({unix_now(), kind, c.local, c.backend});
      write_log(c, kind);
    }
  }
  close_connection(c);
  c.timer = 0;
  if (c.is_download) return;
  if (!in_request) {
    arm(c, std::max(c.due, now_ns()));
  } else {
    // Not at once: a refused connection would be tried again thousands of times a second.
    c.due = std::max(c.due, now_ns() - interval_ + 10 * ns_per_ms);
    schedule_next(c);
  }
}

void client::close_connection(connection& c) {
  if (c.fd >= 0) ::close(c.fd);
  c.fd = -1;
  c.now = state::closed;
}

void client::write_log(const connection& c, const char* outcome) {
  if (!log_) return;
  const std::int64_t now = now_ns();
  const double end = unix_now();
  const double began = end - static_cast<double>(now - c.sent) / ns_per_s;
  std::fprintf(log_, "%.6f\t%.6f\t%s\t%s\t%s\t%zu\n", began, end, outcome, c.local.c_str(),
               c.backend.c_str(), c.index);
}

}  // namespace sluice::flowgen
