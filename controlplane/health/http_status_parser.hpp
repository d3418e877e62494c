// SPDX-License-Identifier: Apache-2.0
// http_status_parser: finds the status code at the start of an HTTP/1.x response
// (RFC 9112 section 4), fed in pieces of any size. Interim responses (1xx except 101,
// RFC 9110 section 15.2) are skipped. Nothing behind the final status line is looked
// at, nothing is stored, and no more than max_bytes are ever accepted.
// Strict, but for one thing that servers are known to get wrong and that cannot be
// misread: the space before an empty reason phrase may be missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::health {

class http_status_parser {
 public:
  enum class progress : std::uint8_t { need_more, done, bad };

  static constexpr std::size_t max_line = 1024;    // a status line, without CRLF
  static constexpr std::size_t max_bytes = 16384;  // all interim responses together

  // feed() takes the next bytes. After done or bad it takes none and says the same again.
  progress feed(std::string_view bytes) noexcept;

  // status() is 100 to 599 after done, otherwise 0.
  [[nodiscard]] unsigned status() const noexcept { return step_ == step::done ? status_ : 0; }
  // error() says what was wrong after bad; otherwise empty. Static text.
  [[nodiscard]] std::string_view error() const noexcept { return error_; }
  // started() is true once a byte was taken.
  [[nodiscard]] bool started() const noexcept { return total_ != 0; }

 private:
  enum class step : std::uint8_t {
    version,
    minor,
    space,
    code,
    after_code,
    reason,
    line_feed,
    field_start,
    field,
    field_line_feed,
    last_line_feed,
    done,
    bad
  };

  step next(unsigned char c) noexcept;
  step fail(std::string_view why) noexcept;

  step step_{step::version};
  std::uint8_t matched_{0};  // characters of "HTTP/1." or digits of the code
  unsigned status_{0};
  std::size_t line_{0};
  std::size_t total_{0};
  std::string_view error_;
};

}  // namespace sluice::health
