// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/http_status_parser.hpp"

namespace sluice::health {

namespace {

constexpr std::string_view version_prefix = "HTTP/1.";

constexpr bool is_digit(unsigned char c) noexcept {
  return c >= '0' && c <= '9';
}

// reason-phrase and field-line: HTAB, SP, VCHAR, obs-text (RFC 9112 sections 4 and 5).
constexpr bool is_text(unsigned char c) noexcept {
  return c == '\t' || (c >= 0x20 && c != 0x7f);
}

// An interim response is followed by the real one; 101 would change the protocol.
constexpr bool is_interim(unsigned status) noexcept {
  return status >= 100 && status < 200 && status != 101;
}

}  // namespace

http_status_parser::progress http_status_parser::feed(std::string_view bytes) noexcept {
  for (const char c : bytes) {
    if (step_ == step::done || step_ == step::bad) break;
    step_ = ++total_ > max_bytes ? fail("too many bytes before the final status line")
                                 : next(static_cast<unsigned char>(c));
  }
  if (step_ == step::done) return progress::done;
  return step_ == step::bad ? progress::bad : progress::need_more;
}

http_status_parser::step http_status_parser::fail(std::string_view why) noexcept {
  error_ = why;
  return step::bad;
}

http_status_parser::step http_status_parser::next(unsigned char c) noexcept {
  switch (step_) {
    case step::version:
      if (c != static_cast<unsigned char>(version_prefix[matched_]))
        return fail("not an HTTP/1 response");
      return ++matched_ == version_prefix.size() ? step::minor : step::version;
    case step::minor:
      return is_digit(c) ? step::space : fail("bad HTTP version");
    case step::space:
      matched_ = 0;
      status_ = 0;
      return c == ' ' ? step::code : fail("no space after the HTTP version");
    case step::code:
      if (!is_digit(c)) return fail("the status code is not three digits");
      status_ = status_ * 10 + (c - unsigned{'0'});
      if (++matched_ < 3) return step::code;
      // RFC 9110 section 15: other values are invalid.
      return status_ >= 100 && status_ <= 599 ? step::after_code
                                              : fail("the status code is not 100 to 599");
    case step::after_code:
      line_ = version_prefix.size() + 6;
      if (c == '\r') return step::line_feed;
      return c == ' ' ? step::reason : fail("the status code is not three digits");
    case step::reason:
      if (c == '\r') return step::line_feed;
      if (!is_text(c)) return fail("a control character in the status line");
      return ++line_ <= max_line ? step::reason : fail("the status line is too long");
    case step::line_feed:
      if (c != '\n') return fail("CR without LF");
      return is_interim(status_) ? step::field_start : step::done;
    case step::field_start:
      if (c == '\r') return step::last_line_feed;
      return is_text(c) ? step::field : fail("a control character in a header");
    case step::field:
      if (c == '\r') return step::field_line_feed;
      return is_text(c) ? step::field : fail("a control character in a header");
    case step::field_line_feed:
      return c == '\n' ? step::field_start : fail("CR without LF");
    case step::last_line_feed:
      matched_ = 0;
      return c == '\n' ? step::version : fail("CR without LF");
    case step::done:
    case step::bad:
      break;
  }
  return step_;
}

}  // namespace sluice::health
