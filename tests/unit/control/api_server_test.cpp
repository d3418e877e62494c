// SPDX-License-Identifier: Apache-2.0
// The API's socket beside clients that are slow on purpose.
#include <gtest/gtest.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "controlplane/api/server.hpp"
#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::api {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

class client {
 public:
  explicit client(const std::string& path) : fd_{::socket(AF_UNIX, SOCK_STREAM, 0)} {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, path.data(), path.size());
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) std::abort();
  }
  client(client&& o) noexcept : fd_{std::exchange(o.fd_, -1)} {}
  client(const client&) = delete;
  client& operator=(const client&) = delete;
  client& operator=(client&&) = delete;
  ~client() {
    if (fd_ >= 0) ::close(fd_);
  }
  void send(std::string_view text) const {
    (void)::send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // answer() is what comes until the server hangs up or the time is over.
  [[nodiscard]] std::string answer(std::chrono::milliseconds within) const {
    std::string all;
    const auto end = clock::now() + within;
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - clock::now()).count();
      pollfd p{fd_, POLLIN, 0};
      if (left <= 0 || ::poll(&p, 1, static_cast<int>(left)) <= 0) return all;
      char buffer[4096];
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return all;
      all.append(buffer, static_cast<std::size_t>(n));
    }
  }

 private:
  int fd_;
};

class api_server : public ::testing::Test {
 protected:
  void serve(const time_limits& limits) {
    auto made = server::listen(
        path(), 0600,
        [](const request& r) {
          return ok({{"body", r.body}});
        },
        limits);
    ASSERT_TRUE(made) << made.error();
    server_ = std::move(*made);
  }
  // drip() has many clients send a header that never ends, a byte at a time.
  void drip() {
    for (int i = 0; i < 64; ++i) {
      slow_.emplace_back(path());
      slow_.back().send("GET /v1/version HTTP/1.1\r\nX: ");
    }
    dripping_ = std::thread{[this] {
      while (!stop_) {
        for (const auto& c : slow_) c.send("a");
        std::this_thread::sleep_for(10ms);
      }
    }};
  }
  void TearDown() override {
    stop_ = true;
    if (dripping_.joinable()) dripping_.join();
  }
  std::string path() const { return directory_.file("api.sock"); }

  test::scratch_directory directory_;
  std::unique_ptr<server> server_;
  std::vector<client> slow_;
  std::atomic<bool> stop_{false};
  std::thread dripping_;
};

TEST_F(api_server, answers_beside_clients_that_never_end) {
  serve({.idle = 200ms, .request = 200ms, .answer = 1s});
  drip();
  const client normal{path()};
  normal.send("PUT /v1/config HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_NE(normal.answer(10s).find(R"({"body":"hello"})"), std::string::npos);
}

TEST_F(api_server, several_requests_on_one_connection) {
  serve({});
  const client c{path()};
  c.send("GET /v1/version HTTP/1.1\r\n\r\nGET /v1/version HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string all = c.answer(10s);
  const auto first = all.find("200 OK");
  ASSERT_NE(first, std::string::npos);
  EXPECT_NE(all.find("200 OK", first + 1), std::string::npos);
}

// An answer that goes on: each piece is as large as the sockets' buffers are not.
TEST_F(api_server, drops_a_reader_that_does_not_read) {
  const auto source = std::make_shared<std::atomic<int>>(0);
  auto made = server::listen(path(), 0600,
                             [source](const request&) {
                               reply r;
                               r.more = [source](std::chrono::milliseconds) {
                                 ++*source;
                                 return std::optional{std::string(100'000, 'x')};
                               };
                               return r;
                             },
                             {.piece = 200ms});
  ASSERT_TRUE(made) << made.error();
  const client slow{path()};
  slow.send("GET /v1/events HTTP/1.1\r\n\r\n");
  const auto until = clock::now() + 10s;
  while (*source == 0 && clock::now() < until) std::this_thread::sleep_for(5ms);
  int before = -1;
  while (*source != before && clock::now() < until) {  // until the buffers are full
    before = *source;
    std::this_thread::sleep_for(400ms);
  }
  const std::string got = slow.answer(5s);
  EXPECT_GT(got.size(), 50'000u);
  EXPECT_EQ(*source, before) << "it was asked for more, although nobody reads";
}

TEST_F(api_server, says_that_it_lives_and_ends) {
  auto made = server::listen(
      path(), 0600,
      [](const request&) {
        reply r;
        r.body = "first";
        r.more = [n = 0](std::chrono::milliseconds) mutable -> std::optional<std::string> {
          std::this_thread::sleep_for(10ms);
          if (++n > 20) return std::nullopt;
          return n == 20 ? "last" : "";
        };
        return r;
      },
      {.heartbeat = 50ms});
  ASSERT_TRUE(made) << made.error();
  const client c{path()};
  c.send("GET /v1/events HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string all = c.answer(10s);
  EXPECT_NE(all.find("first"), std::string::npos);
  EXPECT_NE(all.find(":\n\n"), std::string::npos) << "no heartbeat";
  EXPECT_NE(all.find("last"), std::string::npos);
  EXPECT_NE(all.find("0\r\n\r\n"), std::string::npos) << "no end";
}

TEST_F(api_server, methods_that_it_does_not_know) {
  serve({.idle = 100ms});
  for (const char* method : {"BREW", "TRACE", "CONNECT", "PROPFIND"}) {
    const client c{path()};
    c.send(std::string{method} + " /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n");
    EXPECT_NE(c.answer(10s).find("405"), std::string::npos) << method;
  }
  const client c{path()};
  c.send("GET\r\n\r\n");
  EXPECT_NE(c.answer(10s).find("400"), std::string::npos);
}

TEST_F(api_server, stops_though_clients_never_end) {
  serve({});
  drip();
  std::this_thread::sleep_for(100ms);
  const auto begin = clock::now();
  server_->stop();
  EXPECT_LT(clock::now() - begin, 5s);
}

}  // namespace
}  // namespace sluice::api
