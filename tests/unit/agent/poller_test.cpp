// SPDX-License-Identifier: Apache-2.0
// Agents of every kind, real ones on loopback: what the poller makes of them.
#include "controlplane/agent/poller.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace sluice::agent {
namespace {

using namespace std::chrono_literals;

// agent: listens, reads `until` bytes, answers in pieces, closes or stays.
class agent_server {
 public:
  agent_server(std::vector<std::string> pieces, bool closes, std::size_t until = 0)
      : fd_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof a;
    if (::bind(fd_, reinterpret_cast<const sockaddr*>(&a), length) != 0 || ::listen(fd_, 8) != 0)
      std::abort();
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&a), &length);
    port = ntohs(a.sin_port);
    thread_ = std::thread{[this, pieces = std::move(pieces), closes, until] {
      std::vector<int> open;
      for (int c = -1; (c = ::accept(fd_, nullptr, nullptr)) >= 0;) {
        ++connections;
        char buffer[256];
        for (std::size_t got = 0; got < until;) {
          const ssize_t n = ::read(c, buffer, sizeof buffer);
          if (n <= 0) break;
          got += static_cast<std::size_t>(n);
          heard.append(buffer, static_cast<std::size_t>(n));
        }
        for (const auto& p : pieces) {
          if (::send(c, p.data(), p.size(), MSG_NOSIGNAL) < 0) break;
          std::this_thread::sleep_for(5ms);
        }
        if (closes)
          ::close(c);
        else
          open.push_back(c);
      }
      for (const int c : open) ::close(c);
    }};
  }
  void stop() {
    if (!thread_.joinable()) return;
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  ~agent_server() { stop(); }
  agent_server(const agent_server&) = delete;
  agent_server& operator=(const agent_server&) = delete;

  std::uint16_t port{};
  std::atomic<int> connections{0};
  std::string heard;  // after stop()

 private:
  int fd_;
  std::thread thread_;
};

struct asking {
  event_loop loop;
  std::vector<std::string> lines;
  std::vector<std::string> failures;
  poller agents{loop, [this](const target&, const std::string& line) { lines.push_back(line); },
                [this](const target&, const std::string& why) { failures.push_back(why); }};

  static target at(std::uint16_t port, std::string send = {}) {
    return {ip_address::v4({127, 0, 0, 1}), {port, std::move(send), 100ms, 80ms}};
  }
  void run(std::chrono::milliseconds d, const std::vector<target>& targets) {
    agents.set_targets(targets);
    loop.run_for(d);
    agents.set_targets({});
  }
};

TEST(agent_poller, reads_one_line_each_interval) {
  agent_server server{{"up 75%\nmore\n"}, true};
  asking a;
  a.run(800ms, {asking::at(server.port), asking::at(server.port)});  // one connection for both
  ASSERT_GE(a.lines.size(), 3u);
  EXPECT_LE(a.lines.size(), 9u);
  for (const auto& line : a.lines) EXPECT_EQ(line, "up 75%");
  EXPECT_TRUE(a.failures.empty());
}

TEST(agent_poller, a_line_may_come_in_pieces_or_without_an_end) {
  agent_server pieces{{"do", "wn#", "x\r\n"}, false};
  asking a;
  a.run(300ms, {asking::at(pieces.port)});
  ASSERT_FALSE(a.lines.empty());
  EXPECT_EQ(a.lines[0], "down#x");
  agent_server endless{{"ready"}, true};
  asking b;
  b.run(300ms, {asking::at(endless.port)});
  ASSERT_FALSE(b.lines.empty());
  EXPECT_EQ(b.lines[0], "ready");
}

TEST(agent_poller, sends_what_it_shall) {
  agent_server server{{"up\n"}, true, 7};
  asking a;
  a.run(250ms, {asking::at(server.port, "web b1\n")});
  EXPECT_FALSE(a.lines.empty());
  server.stop();
  EXPECT_EQ(server.heard.substr(0, 7), "web b1\n");
}

TEST(agent_poller, what_says_nothing_is_a_failure_and_no_line) {
  agent_server silent{{}, false};
  agent_server empty{{}, true};
  agent_server endless{{std::string(3000, 'x')}, false};
  agent_server gone{{}, true};
  gone.stop();
  for (const auto& [port, why] : std::vector<std::pair<std::uint16_t, std::string>>{
           {silent.port, "no line in time"},
           {empty.port, "an empty answer"},
           {endless.port, "no line within 1024 bytes"},
           {gone.port, "Connection refused"}}) {
    asking a;
    a.run(350ms, {asking::at(port)});
    EXPECT_TRUE(a.lines.empty());
    ASSERT_FALSE(a.failures.empty()) << why;
    EXPECT_EQ(a.failures[0], why);
  }
}

TEST(agent_poller, may_be_changed_by_what_it_hears) {
  agent_server server{{"up\n"}, true};
  event_loop loop;
  int lines = 0;
  std::unique_ptr<poller> agents;
  agents = std::make_unique<poller>(
      loop,
      [&](const target&, const std::string&) {
        ++lines;
        agents->set_targets({});
      },
      [](const target&, const std::string&) {});
  agents->set_targets({asking::at(server.port)});
  loop.run_for(500ms);
  EXPECT_EQ(lines, 1);
}

}  // namespace
}  // namespace sluice::agent
