// SPDX-License-Identifier: Apache-2.0
// yaml::document: from bytes to our tree, by yaml-cpp's events.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <deque>
#include <sstream>
#include <unordered_map>

#include "dataplane/abi/utf8.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::yaml {

struct document::storage {
  std::deque<node> nodes;  // a deque: nodes do not move
};

namespace {

// A few kilobytes of aliases of aliases name billions of nodes. Sharing a list or two
// between services is what they are good for here.
constexpr std::size_t max_alias_nodes = 64u << 10;

struct refusal {
  unsigned line;
  std::string message;
};

unsigned line_of(const YAML::Mark& mark) {
  return static_cast<unsigned>(mark.line + 1);
}

// check_bytes() refuses what yaml-cpp would misread: it takes byte 4 for the end of the
// text, guesses UTF-16 from the first bytes, and replaces broken UTF-8 silently.
std::optional<refusal> check_bytes(std::string_view text) {
  const auto fault = fault_in(text);
  if (!fault) return std::nullopt;
  const auto before = text.substr(0, fault->at);
  const auto line = 1 + static_cast<unsigned>(std::count(before.begin(), before.end(), '\n'));
  if (!fault->is_control) return refusal{line, "not valid UTF-8"};
  return refusal{line, "control character (byte " +
                           std::to_string(static_cast<unsigned char>(text[fault->at])) +
                           ") in the text; write plain UTF-8"};
}

class builder final : public YAML::EventHandler {
 public:
  explicit builder(std::deque<node>& nodes) : nodes_{nodes} {}

  [[nodiscard]] const node* root() const noexcept { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      throw refusal{line_of(mark), "a second document begins here; one file holds one document"};
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    leaf(make(node_kind::null, mark, "?"), anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    node* n = make(node_kind::scalar, mark, tag);
    n->text = text;
    n->quoted = tag == "!";
    leaf(n, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      throw refusal{line_of(mark), "an alias inside of what it names; write the value out"};
    alias_nodes_ += found->second.size;
    if (alias_nodes_ > max_alias_nodes)
      throw refusal{line_of(mark), "aliases repeat more than " + std::to_string(max_alias_nodes) +
                                       " values; write the values out"};
    add(found->second.target, found->second.size, line_of(mark));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(node_kind::sequence, mark, tag), anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(node_kind::map, mark, tag), anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  struct anchored {
    const node* target;
    std::size_t size;  // nodes in it, aliases expanded
  };
  struct frame {
    node* container;
    YAML::anchor_t anchor;
    std::size_t size;
    bool key_read;  // a map: the next node is a value
  };

  node* make(node_kind kind, const YAML::Mark& mark, const std::string& tag) {
    if (nodes_.size() >= max_nodes)
      throw refusal{line_of(mark), "more than " + std::to_string(max_nodes) + " values"};
    if (!tag.empty() && tag != "?" && tag != "!")
      throw refusal{line_of(mark), "tags (such as !!str) are not supported; leave the tag out"};
    node& n = nodes_.emplace_back();
    n.kind = kind;
    n.line = line_of(mark);
    return &n;
  }
  void leaf(node* n, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = {n, 1};
    add(n, 1, n->line);
  }
  void open(node* n, YAML::anchor_t anchor) {
    if (stack_.size() >= max_depth)
      throw refusal{n->line, "nested deeper than " + std::to_string(max_depth) + " levels"};
    // As a key it would have been refused anyway; say so here, where the line is.
    if (!stack_.empty() && stack_.back().container->kind == node_kind::map &&
        !stack_.back().key_read)
      throw refusal{n->line, "a list or map as a key; a key is a word"};
    stack_.push_back({n, anchor, 1, false});
  }
  void close() {
    const frame done = stack_.back();
    stack_.pop_back();
    if (done.anchor != 0) anchors_[done.anchor] = {done.container, done.size};
    add(done.container, done.size, done.container->line);
  }
  void add(const node* n, std::size_t size, unsigned line) {
    if (stack_.empty()) {
      root_ = n;
      return;
    }
    frame& top = stack_.back();
    top.size += size;
    if (top.container->kind == node_kind::sequence) {
      top.container->items.push_back(n);
    } else if (top.key_read) {
      top.container->entries.back().value = n;
      top.key_read = false;
    } else {
      if (n->kind != node_kind::scalar)
        throw refusal{line, n->kind == node_kind::null ? "a key is missing before ':'"
                                                       : "a list or map as a key; a key is a word"};
      top.container->entries.push_back({n->text, line, nullptr});
      top.key_read = true;
    }
  }

  std::deque<node>& nodes_;
  std::vector<frame> stack_;
  std::unordered_map<YAML::anchor_t, anchored> anchors_;
  std::size_t alias_nodes_{0};
  unsigned documents_{0};
  const node* root_{nullptr};
};

}  // namespace

document::document(std::unique_ptr<storage> s, const node* root)
    : storage_{std::move(s)}, root_{root} {}
document::document(document&&) noexcept = default;
document& document::operator=(document&&) noexcept = default;
document::~document() = default;

tl::expected<document, config_error> document::parse(std::string_view text,
                                                     std::string_view file_name) {
  const auto fail = [&](unsigned line, std::string message) {
    return tl::unexpected{config_error{std::string{file_name}, line, {}, std::move(message)}};
  };
  if (text.size() > max_bytes)
    return fail(0, "is larger than " + std::to_string(max_bytes >> 20) + " MiB");
  if (const auto refused = check_bytes(text)) return fail(refused->line, refused->message);

  auto nodes = std::make_unique<storage>();
  builder events{nodes->nodes};
  try {
    std::istringstream stream{std::string{text}};
    YAML::Parser parser{stream};
    while (parser.HandleNextDocument(events)) {
    }
  } catch (const refusal& r) {
    return fail(r.line, r.message);
  } catch (const YAML::Exception& e) {
    std::string what = e.msg;  // may quote one byte of a longer character
    for (char& c : what)
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    return fail(e.mark.is_null() ? 0 : line_of(e.mark), "YAML syntax: " + what);
  }
  if (!events.root()) {
    node& empty = nodes->nodes.emplace_back();
    empty.line = 1;
    return document{std::move(nodes), &empty};
  }
  return document{std::move(nodes), events.root()};
}

}  // namespace sluice::yaml
