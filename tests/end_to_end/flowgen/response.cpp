// SPDX-License-Identifier: Apache-2.0
#include "tests/end_to_end/flowgen/response.hpp"

#include <strings.h>

#include <algorithm>
#include <charconv>

namespace sluice::flowgen {
namespace {

constexpr std::size_t max_head = 16384;

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

bool http_response::parse_head() {
  std::string_view head{head_};
  if (head.substr(0, 7) != "HTTP/1." || head.size() < 12) return false;
  if (std::from_chars(head.data() + 9, head.data() + 12, status_).ec != std::errc{}) return false;
  bool has_length = false;
  close_ = false;
  backend_.clear();
  while (!head.empty()) {
    const auto end = head.find("\r\n");
    if (end == std::string_view::npos) break;
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, colon);
    std::string_view value = line.substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    if (same(key, "Content-Length")) {
      const auto* last = value.data() + value.size();
      has_length = std::from_chars(value.data(), last, body_left_).ec == std::errc{};
    } else if (same(key, "X-Backend")) {
      backend_ = value;
    } else if (same(key, "Connection")) {
      close_ = same(value, "close");
    }
  }
  return has_length;
}

http_response::progress http_response::feed(std::string_view data,
                                            const std::function<void(std::string_view)>& body) {
  if (!in_body_) {
    const std::size_t before = head_.size();
    head_.append(data);
    // The end may lie across two pieces.
    const auto end = head_.find("\r\n\r\n", before > 3 ? before - 3 : 0);
    if (end == std::string::npos)
      return head_.size() > max_head ? progress::broken : progress::incomplete;
    const std::size_t used = end + 4 - before;
    head_.resize(end + 2);
    if (!parse_head()) return progress::broken;
    data.remove_prefix(used);
    in_body_ = true;
  }
  const auto take = static_cast<std::size_t>(
      std::min<std::uint64_t>(body_left_, static_cast<std::uint64_t>(data.size())));
  if (take) body(data.substr(0, take));
  body_left_ -= take;
  // One request at a time: nothing may follow.
  if (take < data.size()) return progress::broken;
  if (body_left_) return progress::incomplete;
  head_.clear();
  in_body_ = false;
  return progress::complete;
}

}  // namespace sluice::flowgen
