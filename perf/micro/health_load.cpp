// SPDX-License-Identifier: Apache-2.0
// What health checks cost: N targets on 127.0.0.0/8, each checked once a second for some seconds by
// one thread, the share of a core that this thread takes, and how far from its time a check is
// made. The servers are on a thread of their own. By hand:
//   health_load tcp|http|udp|dns|icmp [TARGETS [SECONDS]]
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/health/socket_address.hpp"

namespace {

using namespace sluice;
using namespace std::chrono_literals;
using clock_type = event_loop::clock;

double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

// A server of the kind, on any address; answers until the end.
class server {
 public:
  explicit server(model::health_kind kind) : kind_{kind} {
    const bool stream = model::streams(kind);
    fd_ = ::socket(AF_INET, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
    const int room = 8 << 20;
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    health::socket_address name = health::to_sockaddr(ip_address::v4({0, 0, 0, 0}), 0, 0);
    if (::bind(fd_, reinterpret_cast<const sockaddr*>(&name.storage), name.length) != 0 ||
        (stream && ::listen(fd_, 4096) != 0))
      std::abort();
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&name.storage), &name.length);
    sockaddr_in in{};
    std::memcpy(&in, &name.storage, sizeof in);
    port = ntohs(in.sin_port);
    if (kind == model::health_kind::icmp) return;
    for (int i = 0; i < (stream ? 4 : 1); ++i) std::thread{[this] { serve(); }}.detach();
  }
  std::uint16_t port{};

 private:
  void serve() const {
    static constexpr std::string_view answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    std::array<char, 4096> buffer;
    while (true) {
      if (model::streams(kind_)) {
        const int fd = ::accept(fd_, nullptr, nullptr);
        if (kind_ == model::health_kind::http && ::recv(fd, buffer.data(), buffer.size(), 0) > 0)
          ::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        ::close(fd);
        continue;
      }
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      const ssize_t n = ::recvfrom(fd_, buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
      if (n < 4) continue;
      buffer[2] = static_cast<char>(0x81);  // dns: a reply
      ::sendto(fd_, buffer.data(), static_cast<std::size_t>(n), 0,
               reinterpret_cast<const sockaddr*>(&from), length);
    }
  }

  model::health_kind kind_;
  int fd_{-1};
};

int run(model::health_kind kind, const char* name, int count, int seconds) {
  const server answers{kind};
  std::vector<health::wanted_target> targets;
  for (int i = 0; i < count; ++i) {
    health::target t;
    // A datagram server on any address answers from the first: there targets differ otherwise.
    t.address =
        kind == model::health_kind::udp || kind == model::health_kind::dns
            ? ip_address::v4({127, 0, 0, 1})
            : ip_address::v4({127, static_cast<std::uint8_t>(8 + (i >> 16)),
                              static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)});
    t.check.kind = kind;
    t.check.interval = 1s;
    t.check.timeout = 900ms;
    t.check.send = "ping " + std::to_string(i);
    t.check.name = "n" + std::to_string(i) + ".example.net";
    t.check = model::without_unused(t.check);
    t.port = kind == model::health_kind::icmp ? std::uint16_t{0} : answers.port;
    targets.push_back({t, health::health_state::unknown});
  }
  event_loop loop;
  health::health_checker checker{loop, [](const auto&, const auto&) {}};
  checker.set_targets(targets);
  loop.run_for(2s);  // the first round, and the move to each one's place
  const auto before = checker.counters();
  const double cpu_before = cpu_seconds();
  const auto begin = clock_type::now();
  loop.run_for(std::chrono::seconds{seconds});
  const double cpu = cpu_seconds() - cpu_before;
  const double took = std::chrono::duration<double>(clock_type::now() - begin).count();
  const auto after = checker.counters();
  std::vector<double> latencies;
  for (const auto& s : checker.snapshot())
    latencies.push_back(std::chrono::duration<double, std::milli>(s.latency).count());
  std::sort(latencies.begin(), latencies.end());
  const double checks = static_cast<double>(after.started - before.started);
  std::printf(
      "%s: %d targets, %.1f s: %.0f checks a second, %llu failed; %.0f%% of a core, %.1f us per "
      "check; answered after %.2f ms in the median, %.2f ms at 99%%\n",
      name, count, took, checks / took,
      static_cast<unsigned long long>(after.failed - before.failed), 100 * cpu / took,
      1e6 * cpu / checks, latencies[latencies.size() / 2], latencies[latencies.size() * 99 / 100]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  const int count = argc > 2 ? std::atoi(argv[2]) : 10000;
  const int seconds = argc > 3 ? std::atoi(argv[3]) : 10;
  using model::health_kind;
  if (count > 0 && seconds > 0)
    for (const auto& [word, kind] :
         {std::pair{"tcp", health_kind::tcp}, std::pair{"http", health_kind::http},
          std::pair{"udp", health_kind::udp}, std::pair{"dns", health_kind::dns},
          std::pair{"icmp", health_kind::icmp}})
      if (name == word) return run(kind, word, count, seconds);
  std::fputs("usage: health_load tcp|http|udp|dns|icmp [TARGETS [SECONDS]]\n", stderr);
  return 2;
}
