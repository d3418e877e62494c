// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/yaml_reader.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <unordered_map>

#include "dataplane/abi/utf8.hpp"

namespace sluice {

std::string config_error::to_string() const {
  std::string out = file;
  if (line != 0) out += (out.empty() ? "line " : ":") + std::to_string(line);
  if (!out.empty()) out += ": ";
  if (!key.empty()) out += key + ": ";
  return out + message;
}

std::string to_string(const std::vector<config_error>& errors) {
  std::string out;
  for (const config_error& e : errors) {
    if (!out.empty()) out += '\n';
    out += e.to_string();
  }
  return out;
}

namespace yaml {
namespace {

// clean() makes text of the file fit for a message: on one line, not too long, still
// UTF-8 where it is cut.
std::string clean(std::string_view text, std::size_t longest) {
  std::size_t end = std::min(text.size(), longest);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;
  std::string out;
  for (const char c : text.substr(0, end)) out += is_control(c) ? ' ' : c;
  return end < text.size() ? out + "..." : out;
}

std::string joined(const std::vector<std::string_view>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) out += i + 1 == names.size() ? " or " : ", ";
    out += names[i];
  }
  return out;
}

std::string duration_text(std::chrono::milliseconds d) {
  const auto n = d.count();
  if (n != 0 && n % 3'600'000 == 0) return std::to_string(n / 3'600'000) + "h";
  if (n != 0 && n % 60'000 == 0) return std::to_string(n / 60'000) + "m";
  if (n != 0 && n % 1000 == 0) return std::to_string(n / 1000) + "s";
  return std::to_string(n) + "ms";
}

// distance() is the optimal string alignment distance: edits and swaps of neighbours.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

std::string shown(std::string_view text) {
  return "'" + clean(text, 64) + "'";
}

std::string_view did_you_mean(std::string_view word,
                              const std::vector<std::string_view>& candidates) {
  if (word.size() > 64) return {};
  std::string plain;  // tablesize, table_size and Table-Size all mean table-size
  for (const char c : word)
    plain += c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::string_view best;
  std::size_t best_distance = 0;
  for (const std::string_view c : candidates) {
    const std::size_t d = distance(plain, c);
    // A third of the letters wrong is still a slip; more is another word.
    if (d <= std::max<std::size_t>(1, c.size() / 3) && (best.empty() || d < best_distance)) {
      best = c;
      best_distance = d;
    }
  }
  return best;
}

void error_list::add(unsigned line, std::string_view key, std::string_view message) {
  if (errors_.size() >= max_errors) {
    ++left_out_;
    return;
  }
  errors_.push_back({file_, line, clean(key, 200), clean(message, 1000)});
}

std::vector<config_error> error_list::take() {
  std::stable_sort(errors_.begin(), errors_.end(),
                   [](const config_error& a, const config_error& b) { return a.line < b.line; });
  if (left_out_ > 0)
    errors_.push_back({file_, 0, {}, "and " + std::to_string(left_out_) + " more errors"});
  left_out_ = 0;
  return std::exchange(errors_, {});
}

void value::wrong_type(std::string_view expected) const {
  std::string is;
  switch (node_->kind) {
    case node_kind::null:
      is = "is empty";
      break;
    case node_kind::scalar:
      is = shown(node_->text) + (node_->quoted ? " (quoted text)" : "") + " is given";
      break;
    case node_kind::sequence:
      is = "a list is given";
      break;
    case node_kind::map:
      is = "a map is given";
      break;
  }
  error(is + "; expected " + std::string{expected});
}

std::optional<std::string> value::text() const {
  if (node_->kind != node_kind::scalar || node_->text.empty()) {
    wrong_type("text");
    return std::nullopt;
  }
  return node_->text;
}

std::optional<std::uint64_t> value::integer(std::uint64_t min, std::uint64_t max,
                                            std::string_view or_word) const {
  const std::string expected = (or_word.empty() ? "" : std::string{or_word} + " or ") +
                               "a whole number from " + std::to_string(min) + " to " +
                               std::to_string(max);
  if (node_->kind != node_kind::scalar || node_->quoted) {
    wrong_type(expected);
    return std::nullopt;
  }
  const std::string& t = node_->text;
  const char* const end = t.data() + t.size();
  std::uint64_t v = 0;
  const auto [at, problem] = std::from_chars(t.data(), end, v);
  const bool digits = at == end && problem != std::errc::invalid_argument && !t.empty();
  if (digits && t.size() > 1 && t[0] == '0') {
    error(shown(t) + " has leading zeros, which some read as octal; expected " + expected);
    return std::nullopt;
  }
  const bool negative =
      t.size() > 1 && t[0] == '-' &&
      std::all_of(t.begin() + 1, t.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits && !negative) {
    wrong_type(expected);
    return std::nullopt;
  }
  if (negative || problem == std::errc::result_out_of_range || v < min || v > max) {
    error(shown(t) + " is out of range; expected " + expected);
    return std::nullopt;
  }
  return v;
}

std::optional<bool> value::boolean() const {
  if (node_->kind == node_kind::scalar && !node_->quoted) {
    if (node_->text == "true") return true;
    if (node_->text == "false") return false;
  }
  wrong_type("true or false");
  return std::nullopt;
}

std::optional<std::chrono::milliseconds> value::duration(std::chrono::milliseconds min,
                                                         std::chrono::milliseconds max) const {
  const std::string expected = "a duration from " + duration_text(min) + " to " +
                               duration_text(max) + ", such as 500ms, 2s, 1m or 1h";
  if (node_->kind != node_kind::scalar) {
    wrong_type(expected);
    return std::nullopt;
  }
  const std::string& t = node_->text;
  std::uint64_t n = 0;
  const auto [at, problem] = std::from_chars(t.data(), t.data() + t.size(), n);
  const std::string_view unit{at, static_cast<std::size_t>(t.data() + t.size() - at)};
  constexpr std::array<std::pair<std::string_view, std::uint64_t>, 4> units{
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  const auto* const found =
      std::find_if(units.begin(), units.end(), [&](const auto& u) { return u.first == unit; });
  if (problem == std::errc::invalid_argument || found == units.end()) {
    const bool bare = problem != std::errc::invalid_argument && unit.empty();
    error(shown(t) + (bare ? " has no unit" : " is not a duration") + "; expected " + expected);
    return std::nullopt;
  }
  const auto highest = static_cast<std::uint64_t>(max.count());
  if (problem == std::errc::result_out_of_range || n > highest / found->second ||
      n * found->second < static_cast<std::uint64_t>(min.count())) {
    error(shown(t) + " is out of range; expected " + expected);
    return std::nullopt;
  }
  return std::chrono::milliseconds{n * found->second};
}

std::optional<std::size_t> value::word_index(const std::vector<std::string_view>& names) const {
  if (node_->kind != node_kind::scalar || node_->text.empty()) {
    wrong_type(joined(names));
    return std::nullopt;
  }
  const auto found = std::find(names.begin(), names.end(), node_->text);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  const std::string_view near = did_you_mean(node_->text, names);
  error(shown(node_->text) + " is unknown; expected " + joined(names) +
        (near.empty() ? "" : " (did you mean " + std::string{near} + "?)"));
  return std::nullopt;
}

std::optional<std::vector<value>> value::items() const {
  if (node_->kind != node_kind::sequence) {
    wrong_type("a list");
    return std::nullopt;
  }
  std::vector<value> out;
  out.reserve(node_->items.size());
  for (std::size_t i = 0; i < node_->items.size(); ++i)
    out.emplace_back(node_->items[i], node_->items[i]->line, path_ + "[" + std::to_string(i) + "]",
                     errors_);
  return out;
}

std::optional<map_value> value::any_map() const {
  if (node_->kind != node_kind::map) {
    wrong_type("a map (key: value)");
    return std::nullopt;
  }
  std::unordered_map<std::string_view, unsigned> seen;
  for (const node::entry& e : node_->entries) {
    const auto [first, fresh] = seen.emplace(e.key, e.line);
    if (!fresh)
      errors_->add(e.line, path_.empty() ? e.key : path_ + "." + e.key,
                   "is given twice; it is first given in line " + std::to_string(first->second));
  }
  return map_value{node_, line_, path_, errors_};
}

std::optional<map_value> value::map(std::initializer_list<std::string_view> keys) const {
  const auto out = any_map();
  if (!out) {
    return out;
  }
  const std::vector<std::string_view> names{keys};
  for (const node::entry& e : node_->entries) {
    if (std::find(names.begin(), names.end(), e.key) != names.end()) continue;
    const std::string_view near = did_you_mean(e.key, names);
    errors_->add(e.line, path_.empty() ? e.key : path_ + "." + e.key,
                 near.empty() ? "unknown key; known here are " + joined(names)
                              : "unknown key; did you mean " + std::string{near} + "?");
  }
  return out;
}

std::string map_value::child_path(std::string_view key) const {
  return path_.empty() ? std::string{key} : path_ + "." + std::string{key};
}

value map_value::child(const node::entry& e) const {
  // The mark of an empty value is that of whatever comes next, and that of a block is
  // its first line: the key is the better place.
  const unsigned line = e.value->kind == node_kind::scalar ? e.value->line : e.line;
  return {e.value, line, child_path(e.key), errors_};
}

std::optional<value> map_value::find(std::string_view key) const {
  for (const node::entry& e : node_->entries)
    if (e.key == key) return child(e);
  return std::nullopt;
}

std::optional<value> map_value::require(std::string_view key, std::string_view example) const {
  auto found = find(key);
  if (!found)
    errors_->add(line_, child_path(key), "is missing; for example " + std::string{example});
  return found;
}

std::vector<std::pair<std::string, value>> map_value::members() const {
  std::vector<std::pair<std::string, value>> out;
  std::unordered_map<std::string_view, bool> seen;
  for (const node::entry& e : node_->entries)
    if (seen.emplace(e.key, true).second) out.emplace_back(e.key, child(e));
  return out;
}

}  // namespace yaml
}  // namespace sluice
