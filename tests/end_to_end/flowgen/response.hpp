// SPDX-License-Identifier: Apache-2.0
// Incremental readers of the two kinds of answer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace sluice::flowgen {

// http_response reads one HTTP/1.1 response with a Content-Length from a stream.
class http_response {
 public:
  enum class progress : std::uint8_t { incomplete, complete, broken };

  // feed() takes what was received; body is called with each piece of the body. After
  // complete the object is ready for the next response.
  progress feed(std::string_view data, const std::function<void(std::string_view)>& body);

  [[nodiscard]] int status() const { return status_; }
  [[nodiscard]] const std::string& backend() const { return backend_; }
  [[nodiscard]] bool close() const { return close_; }
  [[nodiscard]] bool idle() const { return head_.empty() && !in_body_; }

 private:
  bool parse_head();

  std::string head_;
  std::string backend_;
  std::uint64_t body_left_{};
  int status_{};
  bool in_body_{};
  bool close_{};
};

}  // namespace sluice::flowgen
