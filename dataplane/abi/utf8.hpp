// SPDX-License-Identifier: Apache-2.0
// What is text: UTF-8 (RFC 3629). Any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace sluice {

// utf8_length() is how many bytes the character at text[at] has, 1 to 4; 0: there is no valid one
// (overlong forms, surrogates and what is above U+10FFFF are none).
constexpr std::size_t utf8_length(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char c = byte(at);
  if (c < 0x80) return 1;
  const std::size_t length = c >= 0xc2 && c < 0xe0   ? 2
                             : c >= 0xe0 && c < 0xf0 ? 3
                             : c >= 0xf0 && c < 0xf5 ? 4
                                                     : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t k = 1; k < length; ++k)
    if ((byte(at + k) & 0xc0) != 0x80) return 0;
  if (length == 2) return length;
  const unsigned char second = byte(at + 1);
  if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) ||
      (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
    return 0;
  return length;
}

// is_control() tells a control character of ASCII, tabs and ends of lines among them.
constexpr bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// text_fault is the first place where something is no plain text.
struct text_fault {
  std::size_t at;
  bool is_control;  // else no valid UTF-8
};

// fault_in() looks for control characters other than tabs and ends of lines, and for what is not
// UTF-8.
constexpr std::optional<text_fault> fault_in(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (is_control(c) && c != '\n' && c != '\r' && c != '\t') return text_fault{at, true};
    const std::size_t length = utf8_length(text, at);
    if (length == 0) return text_fault{at, false};
    at += length;
  }
  return std::nullopt;
}

}  // namespace sluice
