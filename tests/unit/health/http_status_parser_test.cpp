// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/http_status_parser.hpp"

#include <gtest/gtest.h>

#include <string>

namespace sluice::health {
namespace {

using progress = http_status_parser::progress;
using namespace std::string_literals;

struct row {
  const char* what;
  std::string in;
  progress verdict;
  unsigned status;
  const char* error;
};

const row rows[] = {
    {"plain", "HTTP/1.1 200 OK\r\n", progress::done, 200, ""},
    {"1.0", "HTTP/1.0 503 Service Unavailable\r\n", progress::done, 503, ""},
    {"empty reason", "HTTP/1.1 204 \r\n", progress::done, 204, ""},
    {"no space before an empty reason", "HTTP/1.1 204\r\n", progress::done, 204, ""},
    {"reason with tab and obs-text", "HTTP/1.1 200 \tg\xc3\xa4\r\n", progress::done, 200, ""},
    {"first 599", "HTTP/1.1 599 x\r\n", progress::done, 599, ""},
    {"101 is final", "HTTP/1.1 101 Switching Protocols\r\n", progress::done, 101, ""},
    {"an interim response is skipped",
     "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: y\r\n\r\nHTTP/1.1 404 no\r\n", progress::done,
     404, ""},
    {"two interim responses", "HTTP/1.1 100 \r\n\r\nHTTP/1.1 102\r\n\r\nHTTP/1.1 200 OK\r\n",
     progress::done, 200, ""},
    {"what follows does not matter", "HTTP/1.1 200 OK\r\n\0\xff\n"s, progress::done, 200, ""},

    {"nothing", "", progress::need_more, 0, ""},
    {"cut in the version", "HTTP/1", progress::need_more, 0, ""},
    {"cut before LF", "HTTP/1.1 200 OK\r", progress::need_more, 0, ""},
    {"interim only", "HTTP/1.1 100 Continue\r\n\r\n", progress::need_more, 0, ""},

    {"other protocol", "SSH-2.0-OpenSSH_9.2\r\n", progress::bad, 0, "not an HTTP/1 response"},
    {"lower case", "http/1.1 200 OK\r\n", progress::bad, 0, "not an HTTP/1 response"},
    {"leading space", " HTTP/1.1 200 OK\r\n", progress::bad, 0, "not an HTTP/1 response"},
    {"leading line", "\r\nHTTP/1.1 200 OK\r\n", progress::bad, 0, "not an HTTP/1 response"},
    {"HTTP/2", "HTTP/2 200\r\n", progress::bad, 0, "not an HTTP/1 response"},
    {"HTTP/0.9 page", "<html>", progress::bad, 0, "not an HTTP/1 response"},
    {"TLS alert", "\x15\x03\x01\0\x02\x02\x28"s, progress::bad, 0, "not an HTTP/1 response"},
    {"minor version is no digit", "HTTP/1.x 200 OK\r\n", progress::bad, 0, "bad HTTP version"},
    {"minor version of two digits", "HTTP/1.11 200 OK\r\n", progress::bad, 0,
     "no space after the HTTP version"},
    {"two spaces", "HTTP/1.1  200 OK\r\n", progress::bad, 0, "the status code is not three digits"},
    {"two digits", "HTTP/1.1 20 OK\r\n", progress::bad, 0, "the status code is not three digits"},
    {"four digits", "HTTP/1.1 2000 OK\r\n", progress::bad, 0,
     "the status code is not three digits"},
    {"sign", "HTTP/1.1 +20 OK\r\n", progress::bad, 0, "the status code is not three digits"},
    {"below 100", "HTTP/1.1 099 x\r\n", progress::bad, 0, "the status code is not 100 to 599"},
    {"above 599", "HTTP/1.1 600 x\r\n", progress::bad, 0, "the status code is not 100 to 599"},
    {"bare LF", "HTTP/1.1 200 OK\n", progress::bad, 0, "a control character in the status line"},
    {"bare LF after the code", "HTTP/1.1 200\n", progress::bad, 0,
     "the status code is not three digits"},
    {"bare CR", "HTTP/1.1 200 O\rK\r\n", progress::bad, 0, "CR without LF"},
    {"NUL in the reason", "HTTP/1.1 200 O\0K\r\n"s, progress::bad, 0,
     "a control character in the status line"},
    {"DEL in the reason", "HTTP/1.1 200 \x7f\r\n", progress::bad, 0,
     "a control character in the status line"},
    {"NUL in an interim header", "HTTP/1.1 100 c\r\nA: \0\r\n"s, progress::bad, 0,
     "a control character in a header"},
    {"garbage after an interim response", "HTTP/1.1 100 c\r\n\r\nHTTPS", progress::bad, 0,
     "not an HTTP/1 response"},
};

void expect_row(const row& r, const http_status_parser& parser, progress got) {
  EXPECT_EQ(got, r.verdict) << r.what;
  EXPECT_EQ(parser.status(), r.status) << r.what;
  EXPECT_EQ(parser.error(), r.error) << r.what;
}

TEST(http_status_parser, rows) {
  for (const row& r : rows) {
    http_status_parser parser;
    const progress got = parser.feed(r.in);
    expect_row(r, parser, got);
  }
}

TEST(http_status_parser, says_the_same_however_the_bytes_are_cut) {
  for (const row& r : rows) {
    for (std::size_t cut = 0; cut <= r.in.size(); ++cut) {
      http_status_parser parser;
      parser.feed(std::string_view{r.in}.substr(0, cut));
      const progress got = parser.feed(std::string_view{r.in}.substr(cut));
      expect_row(r, parser, got);
    }
    http_status_parser parser;
    progress got = progress::need_more;
    for (const char c : r.in) got = parser.feed({&c, 1});
    expect_row(r, parser, got);
  }
}

TEST(http_status_parser, the_status_line_is_bounded) {
  const std::string start = "HTTP/1.1 200 ";
  http_status_parser longest;
  const std::string fits(http_status_parser::max_line - start.size(), 'a');
  EXPECT_EQ(longest.feed(start + fits + "\r\n"), progress::done);
  http_status_parser parser;
  EXPECT_EQ(parser.feed(start + fits + "a"), progress::bad);
  EXPECT_EQ(parser.error(), "the status line is too long");
}

TEST(http_status_parser, the_whole_is_bounded) {
  // A server that sends interim responses for ever.
  http_status_parser parser;
  std::size_t fed = 0;
  progress got = progress::need_more;
  while (got == progress::need_more && fed < 2 * http_status_parser::max_bytes) {
    got = parser.feed("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n");
    fed += 31;
  }
  EXPECT_EQ(got, progress::bad);
  EXPECT_LE(fed, http_status_parser::max_bytes + 31);
  EXPECT_EQ(parser.error(), "too many bytes before the final status line");
}

}  // namespace
}  // namespace sluice::health
