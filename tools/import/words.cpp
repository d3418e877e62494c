// SPDX-License-Identifier: Apache-2.0
#include "tools/import/words.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "tools/import/unreadable.hpp"

namespace sluice::importing {

namespace {

constexpr std::size_t deepest = 16;
constexpr std::size_t longest = 16u << 20;  // of all texts, with their definitions put in
constexpr std::size_t deepest_include = 16;
constexpr std::size_t most_files = 1000;

bool blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

bool of_a_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

class statement_reader {
 public:
  statement_reader(std::string_view file, const include_reader& include)
      : include_{include}, out_{{}, line_table{std::string{file}}, {}} {}

  tl::expected<statements, config_error> run(std::string_view text) {
    open_ = {&out_.top};
    if (!read_text(text, 0)) {
      const auto at = out_.lines.at(line_);
      return tl::unexpected{config_error{at.file, at.line, "", std::move(problem_)}};
    }
    return std::move(out_);
  }

 private:
  // read_text() takes one file; its first line is number `before` + 1.
  bool read_text(std::string_view text, unsigned before) {
    line_ = before;
    used_ = before + static_cast<unsigned>(std::count(text.begin(), text.end(), '\n')) + 1;
    size_ += text.size();
    if (size_ > longest) return fail("is larger than 16 MiB");
    const std::size_t outside = std::exchange(around_, open_.size());
    for (std::size_t at = 0; at < text.size();) {
      ++line_;
      const std::size_t end = std::min(text.find('\n', at), text.size());
      if (!read_line(text.substr(at, end - at))) return false;
      at = end + 1;
    }
    if (open_.size() > around_) return fail("ends within a block: a } is missing");
    around_ = outside;
    return true;
  }

  bool fail(std::string message) {
    problem_ = std::move(message);
    return false;
  }

  // word_at() takes the word that begins at `at`, which is no blank, brace or comment.
  std::string word_at(std::string_view line, std::size_t& at) {
    std::string word;
    bool quoted = false;
    for (; at < line.size(); ++at) {
      const char c = line[at];
      if (c == '"') {
        quoted = !quoted;
        continue;
      }
      if (c == '\\' && quoted && at + 1 < line.size()) {
        word += line[++at];
        continue;
      }
      if (!quoted && (blank(c) || c == '{' || c == '}' || c == '#' || c == '!')) break;
      if (c == '$') {
        put_definition(line, at, word);
      } else {
        word += c;
      }
    }
    return word;
  }

  // put_definition() replaces $NAME or ${NAME}; what is not defined stays as it is.
  void put_definition(std::string_view line, std::size_t& at, std::string& word) {
    std::size_t from = at + 1;
    const bool braced = from < line.size() && line[from] == '{';
    if (braced) ++from;
    std::size_t end = from;
    while (end < line.size() && of_a_name(line[end])) ++end;
    const auto it = definitions_.find(std::string{line.substr(from, end - from)});
    if (it == definitions_.end() || (braced && (end >= line.size() || line[end] != '}'))) {
      word += '$';
      return;
    }
    grown_ += it->second.size();
    if (grown_ > longest) return;  // read_line() says so
    word += it->second;
    at = braced ? end : end - 1;
  }

  // define() takes a line "$NAME=value"; false: it is none.
  bool define(std::string_view line) {
    std::size_t at = 0;
    while (at < line.size() && blank(line[at])) ++at;
    if (at >= line.size() || line[at] != '$') return false;
    std::size_t end = at + 1;
    while (end < line.size() && of_a_name(line[end])) ++end;
    if (end == at + 1 || end >= line.size() || line[end] != '=') return false;
    std::string value{line.substr(end + 1)};
    while (!value.empty() && blank(value.back())) value.pop_back();
    definitions_[std::string{line.substr(at + 1, end - at - 1)}] = std::move(value);
    return true;
  }

  // included_in() is what a line "include PATTERN" names; empty: it is none. keepalived's other
  // words for it differ in what they make of a file that is not there.
  std::string included_in(std::string_view line) {
    std::size_t at = 0;
    while (at < line.size() && blank(line[at])) ++at;
    constexpr std::string_view word = "include";
    if (line.substr(at, word.size()) != word) return {};
    at += word.size();
    if (at < line.size() && std::string_view{"rmwba"}.find(line[at]) != std::string_view::npos)
      ++at;
    if (at >= line.size() || !blank(line[at])) return {};
    std::string pattern;
    for (; at < line.size(); ++at) {
      const char c = line[at];
      if (blank(c) && pattern.empty()) continue;
      if (blank(c) || c == '#' || c == '!') break;
      if (c == '$')
        put_definition(line, at, pattern);
      else if (c != '"')
        pattern += c;
    }
    return pattern;
  }

  bool include(const std::string& pattern) {
    const unsigned here = line_;
    const auto leave = [&](std::string why) {
      const std::string shown = unreadable(pattern).empty() ? " " + pattern : std::string{};
      out_.left_out.push_back({here, "include" + shown, std::move(why)});
      return true;
    };
    if (!include_) return leave("other files are not read");
    if (stack_.size() >= deepest_include) return fail("files include one another too deeply");
    const std::string from = stack_.empty() ? out_.lines.at(here).file : stack_.back().name;
    auto files = include_(pattern, from);
    if (!files) return leave(std::move(files.error()));
    for (source_file& f : *files) {
      line_ = here;
      const auto open = std::find_if(stack_.begin(), stack_.end(),
                                     [&](const auto& s) { return s.identity == f.identity; });
      if (open != stack_.end()) return fail(f.name + " includes itself, by this line at last");
      if (++files_ > most_files) return fail("more than 1000 files are included");
      const unsigned before = out_.lines.add(f.name, used_);
      const std::string text = std::move(f.text);
      stack_.push_back(std::move(f));
      if (!read_text(text, before)) return false;
      stack_.pop_back();
    }
    line_ = here;
    return true;
  }

  bool read_line(std::string_view line) {
    if (define(line)) return true;
    if (const std::string pattern = included_in(line); !pattern.empty()) return include(pattern);
    std::vector<statement>* into = open_.back();
    bool fresh = true;  // the next word begins a statement
    for (std::size_t at = 0; at < line.size();) {
      const char c = line[at];
      if (blank(c)) {
        ++at;
      } else if (c == '#' || c == '!') {
        break;
      } else if (c == '{') {
        if (into->empty()) return fail("a { follows no word");
        if (open_.size() > deepest) return fail("blocks are too deep");
        open_.push_back(&into->back().block);
        into = open_.back();
        fresh = true;
        ++at;
      } else if (c == '}') {
        if (open_.size() == around_) return fail("a } closes no block");
        open_.pop_back();
        into = open_.back();
        fresh = true;
        ++at;
      } else {
        std::string word = word_at(line, at);
        if (grown_ > longest) return fail("is larger than 16 MiB with its definitions put in");
        // Nothing stands for it: what it is a value of is told to have none, if anybody needs it.
        if (const auto why = unreadable(word); !why.empty()) {
          out_.left_out.push_back({line_, "a word", std::string{why}});
          word.clear();
        }
        if (fresh) into->push_back({{}, line_, {}});
        into->back().words.push_back(std::move(word));
        fresh = false;
      }
    }
    return true;
  }

  const include_reader& include_;
  statements out_;
  unsigned line_{0};                // of all files
  unsigned used_{0};                // lines of all files
  std::size_t size_{0};             // of all texts
  std::size_t files_{0};            // that were included
  std::vector<source_file> stack_;  // that are being read, without the first; their texts are gone
  std::size_t around_{0};           // blocks that were open where this file began
  std::string problem_;
  std::map<std::string, std::string> definitions_;
  std::size_t grown_{0};
  // The blocks that are open, the innermost last. A block's address holds while it is open:
  // its own statement is the last one of the block around it.
  std::vector<std::vector<statement>*> open_;
};

}  // namespace

tl::expected<statements, config_error> read_statements(std::string_view text,
                                                       std::string_view file_name,
                                                       const include_reader& include) {
  return statement_reader{file_name, include}.run(text);
}

}  // namespace sluice::importing
