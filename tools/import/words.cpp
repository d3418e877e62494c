// SPDX-License-Identifier: Apache-2.0
#include "tools/import/words.hpp"

#include <map>

namespace sluice::importing {

namespace {

constexpr std::size_t deepest = 16;
constexpr std::size_t longest = 16u << 20;  // of the text, with its definitions put in

bool blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

bool of_a_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

class statement_reader {
 public:
  statement_reader(std::string_view text, std::string_view file) : text_{text}, file_{file} {}

  tl::expected<std::vector<statement>, config_error> run() {
    if (text_.size() > longest) return wrong("is larger than 16 MiB");
    std::vector<statement> top;
    open_ = {&top};
    for (std::size_t at = 0; at < text_.size();) {
      ++line_;
      const std::size_t end = std::min(text_.find('\n', at), text_.size());
      if (!read_line(text_.substr(at, end - at))) return wrong(problem_);
      at = end + 1;
    }
    if (open_.size() > 1) return wrong("ends within a block: a } is missing");
    return top;
  }

 private:
  tl::unexpected<config_error> wrong(std::string message) const {
    return tl::unexpected{config_error{std::string{file_}, line_, "", std::move(message)}};
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

  bool read_line(std::string_view line) {
    if (define(line)) return true;
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
        if (open_.size() == 1) return fail("a } closes no block");
        open_.pop_back();
        into = open_.back();
        fresh = true;
        ++at;
      } else {
        std::string word = word_at(line, at);
        if (grown_ > longest) return fail("is larger than 16 MiB with its definitions put in");
        if (fresh) into->push_back({{}, line_, {}});
        into->back().words.push_back(std::move(word));
        fresh = false;
      }
    }
    return true;
  }

  std::string_view text_;
  std::string_view file_;
  unsigned line_{0};
  std::string problem_;
  std::map<std::string, std::string> definitions_;
  std::size_t grown_{0};
  // The blocks that are open, the innermost last. A block's address holds while it is open:
  // its own statement is the last one of the block around it.
  std::vector<std::vector<statement>*> open_;
};

}  // namespace

tl::expected<std::vector<statement>, config_error> read_statements(std::string_view text,
                                                                   std::string_view file_name) {
  return statement_reader{text, file_name}.run();
}

}  // namespace sluice::importing
