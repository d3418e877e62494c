// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/words.hpp"

#include <algorithm>
#include <charconv>

namespace sluice::agent {
namespace {

constexpr std::uint32_t largest_weight = 65535;
constexpr std::size_t most_unknown = 8;

bool separates(char c) noexcept {
  return c == ' ' || c == '\t' || c == ',';
}

std::string lower(std::string_view s) {
  std::string out{s};
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// printable() is text that can be shown to people as it is.
std::string printable(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, longest_text)) out += c >= 0x20 && c < 0x7f ? c : '?';
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::optional<std::uint32_t> number(std::string_view s) {
  std::uint32_t n = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (error != std::errc{} || end != s.data() + s.size()) return std::nullopt;
  return n;
}

std::optional<asked_weight> weight(std::string_view s) {
  const bool percent = s.ends_with('%');
  if (percent) s.remove_suffix(1);
  const auto n = number(s);
  if (!n) return std::nullopt;
  return asked_weight{std::min(*n, largest_weight), percent};
}

// take_word() is false for a word that is none.
bool take_word(const std::string& w, report& out) {
  constexpr std::string_view weight_is = "weight:";
  constexpr std::string_view most_is = "maxconn:";
  if (w == "up" || w == "down" || w == "fail" || w == "failed" || w == "stopped") {
    out.up = w == "up";
    out.word = w;
    return true;
  }
  if (w == "ready" || w == "drain" || w == "maint") {
    out.mode = w == "ready" ? mode::ready : w == "drain" ? mode::drain : mode::maint;
    return true;
  }
  if (w.starts_with(most_is)) {
    const auto n = number(std::string_view{w}.substr(most_is.size()));
    if (n) out.most_connections = n;
    return n.has_value();
  }
  const auto asked =
      weight(w.starts_with(weight_is) ? std::string_view{w}.substr(weight_is.size()) : w);
  if (asked) out.weight = asked;
  return asked.has_value();
}

}  // namespace

std::string_view to_string(mode m) noexcept {
  switch (m) {
    case mode::ready:
      return "ready";
    case mode::drain:
      return "drain";
    case mode::maint:
      return "maint";
  }
  return "?";
}

report parse(std::string_view line) {
  report out;
  line = line.substr(0, line.find_first_of("\r\n"));
  line = line.substr(0, longest_line);
  while (!line.empty()) {
    if (separates(line.front())) {
      line.remove_prefix(1);
      continue;
    }
    if (line.front() == '#') {
      out.text = printable(line.substr(1));
      break;
    }
    const std::size_t end = std::min(line.find_first_of(" \t,#"), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end);
    if (!take_word(lower(word), out) && out.unknown.size() < most_unknown)
      out.unknown.push_back(printable(word));
  }
  return out;
}

bool standing_report::take(const report& r) {
  const standing_report before = *this;
  if (r.weight) weight = r.weight;
  if (r.most_connections) most_connections = r.most_connections;
  if (r.mode) mode = *r.mode;
  if (r.up) {
    down = !*r.up;
    word = down ? r.word : std::string{};
    text = down ? r.text : std::string{};
  }
  return *this != before;
}

}  // namespace sluice::agent
