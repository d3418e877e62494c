// SPDX-License-Identifier: Apache-2.0
// Strict reading of YAML (and of JSON, which is YAML flow syntax) for configuration.
//
// yaml-cpp takes duplicate keys silently, converts types freely, and walks aliases as
// often as they are named. So only its event parser is used; the tree is ours: every
// key has its line, duplicates are seen, sizes are bounded (16 MiB of text, 32 levels,
// 4 Mi nodes after expansion of aliases). All errors are collected, not only the first.
//
// A document is read by one thread at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

namespace sluice {

// config_error: what is wrong in a file, where, and what would be right.
struct config_error {
  std::string file;     // as it was named by the caller
  unsigned line{};      // from 1; 0: no line (the file as a whole, or no file)
  std::string key;      // "services[0].backends[1].weight"; empty: the file as a whole
  std::string message;  // what is wrong and what would be right

  // to_string() returns "FILE:LINE: key: message", leaving out what is absent.
  [[nodiscard]] std::string to_string() const;
  bool operator==(const config_error&) const = default;
};

// to_string() joins the errors, one on each line, no newline at the end.
[[nodiscard]] std::string to_string(const std::vector<config_error>& errors);

namespace yaml {

inline constexpr std::size_t max_bytes = 16u << 20;
inline constexpr unsigned max_depth = 32;
inline constexpr std::size_t max_nodes = 4u << 20;
inline constexpr std::size_t max_errors = 200;  // the rest is counted in one last line

enum class node_kind : std::uint8_t { null, scalar, sequence, map };

struct node {
  struct entry {
    std::string key;
    unsigned line{};
    const node* value{};
  };
  node_kind kind{node_kind::null};
  unsigned line{};
  bool quoted{};                   // scalar: written in quotes, so never a number or a word
  std::string text;                // scalar
  std::vector<const node*> items;  // sequence
  std::vector<entry> entries;      // map, in the order of the file
};

// error_list collects errors of one file.
class error_list {
 public:
  explicit error_list(std::string_view file_name) : file_{file_name} {}
  void add(unsigned line, std::string_view key, std::string_view message);
  [[nodiscard]] bool empty() const noexcept { return errors_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return errors_.size() + left_out_; }
  // take() returns the errors sorted by line and empties the list.
  [[nodiscard]] std::vector<config_error> take();

 private:
  std::string file_;
  std::vector<config_error> errors_;
  std::size_t left_out_{};
};

// assign() puts what a reader has found into `out`, which stays as it is otherwise; returns
// whether it did.
template <class T, class Number>
bool assign(T& out, const std::optional<Number>& v) {
  if (v) out = static_cast<T>(*v);
  return v.has_value();
}

class map_value;

// value: a node, the path to it, and where to report what is wrong with it. Readers
// return nothing after they have reported.
class value {
 public:
  value(const node* n, unsigned line, std::string path, error_list* errors)
      : node_{n}, line_{line}, path_{std::move(path)}, errors_{errors} {}

  // line() is where the value stands; of one that is empty, a list or a map: its key.
  [[nodiscard]] unsigned line() const noexcept { return line_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] node_kind kind() const noexcept { return node_->kind; }
  void error(std::string_view message) const { errors_->add(line(), path_, message); }

  // text() reads a scalar that is not empty, quoted or not.
  [[nodiscard]] std::optional<std::string> text() const;
  // quoted() tells whether a scalar is written in quotes; is_word() whether it is this.
  [[nodiscard]] bool quoted() const noexcept { return node_->quoted; }
  [[nodiscard]] bool is_word(std::string_view word) const noexcept {
    return node_->kind == node_kind::scalar && node_->text == word;
  }
  // integer() reads an unquoted decimal number, no sign, no leading zeros. `or_word`
  // names in the error what else the caller takes.
  [[nodiscard]] std::optional<std::uint64_t> integer(std::uint64_t min, std::uint64_t max,
                                                     std::string_view or_word = {}) const;
  // boolean() reads true or false.
  [[nodiscard]] std::optional<bool> boolean() const;
  // duration() reads a whole number with a unit: ms, s, m or h.
  [[nodiscard]] std::optional<std::chrono::milliseconds> duration(
      std::chrono::milliseconds min, std::chrono::milliseconds max) const;
  // word() reads one of the words given and returns what stands for it.
  template <class T>
  [[nodiscard]] std::optional<T> word(
      std::initializer_list<std::pair<std::string_view, T>> words) const {
    std::vector<std::string_view> names;
    for (const auto& w : words) names.push_back(w.first);
    const auto i = word_index(names);
    if (!i) return std::nullopt;
    return (words.begin() + *i)->second;
  }
  // items() reads a list.
  [[nodiscard]] std::optional<std::vector<value>> items() const;
  // map() reads a map with these keys; reports unknown ones and duplicates.
  [[nodiscard]] std::optional<map_value> map(std::initializer_list<std::string_view> keys) const;
  // any_map() reads a map whose keys are free; reports duplicates.
  [[nodiscard]] std::optional<map_value> any_map() const;

 private:
  [[nodiscard]] std::optional<std::size_t> word_index(
      const std::vector<std::string_view>& names) const;
  void wrong_type(std::string_view expected) const;

  const node* node_;
  unsigned line_;
  std::string path_;
  error_list* errors_;
};

class map_value {
 public:
  map_value(const node* n, unsigned line, std::string path, error_list* errors)
      : node_{n}, line_{line}, path_{std::move(path)}, errors_{errors} {}

  [[nodiscard]] unsigned line() const noexcept { return line_; }
  // find() returns the value of a key, or nothing when the key is not there.
  [[nodiscard]] std::optional<value> find(std::string_view key) const;
  // require() is find() that reports a key that is not there; `example` shows one.
  [[nodiscard]] std::optional<value> require(std::string_view key, std::string_view example) const;
  // members() returns all keys and values, each key once.
  [[nodiscard]] std::vector<std::pair<std::string, value>> members() const;

 private:
  [[nodiscard]] std::string child_path(std::string_view key) const;
  [[nodiscard]] value child(const node::entry& e) const;

  const node* node_;
  unsigned line_;
  std::string path_;
  error_list* errors_;
};

// document owns the nodes of one text.
class document {
 public:
  // parse() reads exactly one YAML document. Syntax errors, control characters, bytes
  // that are not UTF-8 and exceeded bounds are errors with their line.
  static tl::expected<document, config_error> parse(std::string_view text,
                                                    std::string_view file_name);
  // root() returns the top of the document, reporting to `errors`, which outlives it.
  [[nodiscard]] value root(error_list& errors) const { return {root_, root_->line, {}, &errors}; }

  document(document&&) noexcept;
  document& operator=(document&&) noexcept;
  ~document();

 private:
  struct storage;
  document(std::unique_ptr<storage> s, const node* root);
  std::unique_ptr<storage> storage_;
  const node* root_;
};

// shown() quotes text of a file for a message: cut at 64 bytes, on one line, UTF-8 still.
[[nodiscard]] std::string shown(std::string_view text);

// did_you_mean() returns the candidate closest to `word`, or an empty view when none
// is close.
[[nodiscard]] std::string_view did_you_mean(std::string_view word,
                                            const std::vector<std::string_view>& candidates);

}  // namespace yaml
}  // namespace sluice
