// SPDX-License-Identifier: Apache-2.0
// Single checks by TCP and HTTP against real sockets on loopback.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "tests/unit/health/checker_bench.hpp"

namespace sluice::health {
namespace {

TEST(health_tcp, up_on_both_families_and_refused) {
  for (const char* text : {"127.0.0.1", "127.9.8.7", "::1"}) {
    SCOPED_TRACE(text);
    listener server{address(text)};
    told v = first_verdict(tcp(address(text), server.port()));
    EXPECT_TRUE(v.up);
    EXPECT_EQ(v.reason, "connected");
    server.close();
    v = first_verdict(tcp(address(text), server.port()));
    EXPECT_FALSE(v.up);
    EXPECT_EQ(v.reason, "connection refused");
  }
}

TEST(health_tcp, a_full_backlog_is_a_timeout) {
  const test::full_listener server{local};
  const auto begin = clock::now();
  const target t = tcp(local, server.port(), 100ms, 80ms);
  const told v = first_verdict(t);
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "timeout after 80 ms");
  EXPECT_GE(v.at - begin, 80ms);
}

TEST(health_tcp, leaves_no_time_wait_and_nothing_to_accept) {
  const listener server{local};
  bench b;
  const target t = tcp(local, server.port(), 10ms);
  b.set({t});
  b.loop.run_for(300ms);
  EXPECT_GE(b.status(t).checks, 15U);
  EXPECT_EQ(b.status(t).failed, 0U);
  EXPECT_EQ(::accept(server.fd(), nullptr, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  char port[16];
  std::snprintf(port, sizeof port, ":%04X", unsigned{server.port()});
  std::ifstream table{"/proc/net/tcp"};
  int time_wait = 0;
  for (std::string line; std::getline(table, line);) {
    std::istringstream in{line};
    std::string number, from, to, state;
    in >> number >> from >> to >> state;
    if (state == "06" && (from.ends_with(port) || to.ends_with(port))) ++time_wait;
  }
  EXPECT_EQ(time_wait, 0);
}

TEST(health_http, asks_as_told) {
  http_server server{local, answer(200)};
  target t = http(local, server.port());
  t.check.path = "/healthz?deep=1";
  EXPECT_TRUE(first_verdict(t).up);
  t.check.host = "www.example.com";
  EXPECT_TRUE(first_verdict(t).up);
  const auto requests = server.requests();
  ASSERT_GE(requests.size(), 2U);
  EXPECT_EQ(requests[0],
            "GET /healthz?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(server.port()) +
                "\r\nUser-Agent: sluice-health\r\nAccept: */*\r\n"
                "Connection: close\r\n\r\n");
  EXPECT_NE(requests[1].find("\r\nHost: www.example.com\r\n"), std::string::npos);
}

TEST(health_http, over_ipv6_the_host_is_in_brackets) {
  http_server server{address("::1"), answer(200)};
  EXPECT_TRUE(first_verdict(http(address("::1"), server.port())).up);
  EXPECT_NE(server.requests().at(0).find("\r\nHost: [::1]:"), std::string::npos);
}

TEST(health_http, answers_are_judged) {
  struct row {
    const char* what;
    std::string text;
    manner how;
    bool up;
    const char* reason;
  };
  const std::string long_header(100000, 'a');
  const row rows[] = {
      {"200", answer(200), manner::answer, true, "HTTP 200"},
      {"399 is the end of the range", answer(399), manner::answer, true, "HTTP 399"},
      {"400 is behind it", answer(400), manner::answer, false, "HTTP 400"},
      {"503", answer(503), manner::answer, false, "HTTP 503"},
      {"interim first", "HTTP/1.1 100 Continue\r\n\r\n" + answer(204), manner::answer, true,
       "HTTP 204"},
      {"a huge header behind the status", "HTTP/1.1 200 OK\r\nX: " + long_header, manner::answer,
       true, "HTTP 200"},
      {"a huge status line", "HTTP/1.1 200 " + long_header, manner::answer, false,
       "bad response: the status line is too long"},
      {"endless interim headers", "HTTP/1.1 100 x\r\nX: " + long_header, manner::flood, false,
       "bad response: too many bytes before the final status line"},
      {"garbage", "\x16\x03\x01 garbage\r\n", manner::answer, false,
       "bad response: not an HTTP/1 response"},
      {"cut short", "HTTP/1.1 20", manner::answer, false,
       "connection closed within the status line"},
      {"slow, in time", "HTTP/1.1 200 OK\r\n", manner::drip, true, "HTTP 200"},
      {"slow, too late", "HTTP/1.1 200 " + std::string(900, 'O'), manner::drip, false,
       "timeout after 250 ms within the response"},
      {"silent", "", manner::silent, false, "timeout after 250 ms waiting for a response"},
  };
  for (const row& r : rows) {
    SCOPED_TRACE(r.what);
    http_server server{local, r.text, r.how};
    const told v = first_verdict(http(local, server.port(), 250ms, 250ms));
    EXPECT_EQ(v.up, r.up);
    EXPECT_EQ(v.reason, r.reason);
  }
}

TEST(health_http, the_accepted_range_is_the_models) {
  http_server server{local, answer(404)};
  target t = http(local, server.port());
  t.check.expect_first = t.check.expect_last = 404;
  EXPECT_TRUE(first_verdict(t).up);
  server.set(answer(200));
  EXPECT_FALSE(first_verdict(t).up);
}

TEST(health_http, a_path_that_would_smuggle_a_header_is_not_sent) {
  http_server server{local, answer(200)};
  target t = http(local, server.port());
  t.check.path = "/ HTTP/1.1\r\nX: y";
  EXPECT_EQ(first_verdict(t).reason, "the check's path or host is not valid in an HTTP request");
  EXPECT_TRUE(server.requests().empty());
}

}  // namespace
}  // namespace sluice::health
