// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/yaml_reader.hpp"

#include <gtest/gtest.h>

namespace sluice::yaml {
namespace {

using std::chrono::milliseconds;

std::string syntax_error(std::string_view text) {
  const auto d = document::parse(text, "f.yaml");
  return d ? "parsed" : d.error().to_string();
}

TEST(yaml_document, refuses_what_is_no_single_plain_document) {
  EXPECT_EQ(syntax_error("a: 1\n---\nb: 2\n"),
            "f.yaml:2: a second document begins here; one file holds one document");
  EXPECT_EQ(syntax_error("a: !!str 1\n"),
            "f.yaml:1: tags (such as !!str) are not supported; leave the tag out");
  EXPECT_EQ(syntax_error("a: 1\n[1, 2]: b\n"), "f.yaml:2: a list or map as a key; a key is a word");
  EXPECT_EQ(syntax_error("a:\n  {: c}\n"), "f.yaml:2: a key is missing before ':'");
  EXPECT_EQ(syntax_error("a: [1, 2\n"), "f.yaml:2: YAML syntax: end of sequence flow not found");
  EXPECT_EQ(syntax_error("a:\n\tb: 1\n").substr(0, 24), "f.yaml:2: YAML syntax: i");
  EXPECT_EQ(syntax_error("a: *nowhere\n").substr(0, 22), "f.yaml:1: YAML syntax:");
  EXPECT_EQ(syntax_error(std::string_view{"a: 1\nb\0: 2", 10}),
            "f.yaml:2: control character (byte 0) in the text; write plain UTF-8");
  // yaml-cpp would take this byte for the end of the text, and the rest would be lost.
  EXPECT_EQ(syntax_error("a: 1\n\x04\nb: 2\n"),
            "f.yaml:2: control character (byte 4) in the text; write plain UTF-8");
  EXPECT_EQ(syntax_error("a: \xff\xfe\n"), "f.yaml:1: not valid UTF-8");
  EXPECT_EQ(syntax_error("a: \xc0\xaf\n"), "f.yaml:1: not valid UTF-8");
  EXPECT_EQ(syntax_error("a: \xed\xa0\x80\n"), "f.yaml:1: not valid UTF-8");
  EXPECT_EQ(syntax_error("a: \xe2\x82\xac\n"), "parsed");
}

TEST(yaml_document, is_bounded) {
  EXPECT_EQ(syntax_error(std::string(max_bytes + 1, ' ')), "f.yaml: is larger than 16 MiB");
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(syntax_error(nested(max_depth)), "parsed");
  EXPECT_EQ(syntax_error(nested(max_depth + 1)), "f.yaml:1: nested deeper than 32 levels");
  EXPECT_EQ(syntax_error(nested(100'000)), "f.yaml:1: nested deeper than 32 levels");
  std::string block;
  for (int i = 0; i < 100'000; ++i) block += "- ";
  EXPECT_EQ(syntax_error(block), "f.yaml:1: nested deeper than 32 levels");
}

TEST(yaml_document, aliases_share_but_do_not_explode) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string n = std::to_string(i);
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + n + ": &a" + n + " [";
    for (int k = 0; k < 9; ++k) bomb += (k ? ", " : "") + before;
    bomb += "]\n";
  }
  EXPECT_EQ(syntax_error(bomb),
            "f.yaml:5: aliases repeat more than 65536 values; write the values out");
  EXPECT_EQ(syntax_error("a: &a [1, *a]\n"),
            "f.yaml:1: an alias inside of what it names; write the value out");

  const auto d = document::parse("a: &l [1, 2]\nb: *l\n", "f.yaml");
  ASSERT_TRUE(d);
  error_list errors{"f.yaml"};
  const auto b = d->root(errors).map({"a", "b"})->find("b")->items();
  ASSERT_EQ(b->size(), 2u);
  EXPECT_EQ((*b)[1].integer(0, 9), 2u);
  EXPECT_TRUE(errors.empty());
}

TEST(yaml_document, empty_text_is_a_null) {
  for (const char* text : {"", "\n", "# only a comment\n", "---\n", "~\n"}) {
    const auto d = document::parse(text, "f.yaml");
    ASSERT_TRUE(d) << text;
    error_list errors{"f.yaml"};
    EXPECT_EQ(d->root(errors).kind(), node_kind::null);
    EXPECT_FALSE(d->root(errors).map({"a"}));
    EXPECT_EQ(errors.take().at(0).to_string().substr(10), "is empty; expected a map (key: value)");
  }
}

// one_error() reads the value of `v` with `read` and returns what it reports.
template <class Read>
std::string one_error(std::string_view text, Read read) {
  const auto d = document::parse(text, "f.yaml");
  if (!d) return d.error().to_string();
  error_list errors{"f.yaml"};
  const auto v = d->root(errors).map({"v"})->find("v");
  const bool something = read(*v).has_value();
  const auto all = errors.take();
  EXPECT_EQ(something, all.empty()) << text;
  return all.empty() ? "" : all[0].to_string();
}

TEST(yaml_value, integers) {
  const auto read = [](const value& v) { return v.integer(1, 100); };
  const std::string expected = "expected a whole number from 1 to 100";
  EXPECT_EQ(one_error("v: 1", read), "");
  EXPECT_EQ(one_error("v: 100", read), "");
  EXPECT_EQ(one_error("v: 0", read), "f.yaml:1: v: '0' is out of range; " + expected);
  EXPECT_EQ(one_error("v: 101", read), "f.yaml:1: v: '101' is out of range; " + expected);
  EXPECT_EQ(one_error("v: -5", read), "f.yaml:1: v: '-5' is out of range; " + expected);
  EXPECT_EQ(one_error("v: 99999999999999999999999", read),
            "f.yaml:1: v: '99999999999999999999999' is out of range; " + expected);
  EXPECT_EQ(one_error("v: 010", read),
            "f.yaml:1: v: '010' has leading zeros, which some read as octal; " + expected);
  EXPECT_EQ(one_error("v: 1.5", read), "f.yaml:1: v: '1.5' is given; " + expected);
  EXPECT_EQ(one_error("v: 0x10", read), "f.yaml:1: v: '0x10' is given; " + expected);
  EXPECT_EQ(one_error("v: 1e2", read), "f.yaml:1: v: '1e2' is given; " + expected);
  EXPECT_EQ(one_error("v: +5", read), "f.yaml:1: v: '+5' is given; " + expected);
  EXPECT_EQ(one_error("v: -", read).substr(0, 12), "f.yaml:1: YA");
  EXPECT_EQ(one_error("v: \"5\"", read), "f.yaml:1: v: '5' (quoted text) is given; " + expected);
  EXPECT_EQ(one_error("v:\n", read), "f.yaml:1: v: is empty; " + expected);
  EXPECT_EQ(one_error("v: [5]", read), "f.yaml:1: v: a list is given; " + expected);
  EXPECT_EQ(one_error("\nv: {a: 5}", read), "f.yaml:2: v: a map is given; " + expected);
  EXPECT_EQ(
      one_error("v: 18446744073709551615", [](const value& v) { return v.integer(0, UINT64_MAX); }),
      "");
}

TEST(yaml_value, durations) {
  const auto parsed = [](std::string_view text) {
    const auto d = document::parse("v: " + std::string{text}, "f.yaml");
    error_list errors{"f.yaml"};
    return d->root(errors).map({"v"})->find("v")->duration(milliseconds{0},
                                                           milliseconds{86'400'000});
  };
  EXPECT_EQ(parsed("2s"), milliseconds{2000});
  EXPECT_EQ(parsed("500ms"), milliseconds{500});
  EXPECT_EQ(parsed("1m"), milliseconds{60'000});
  EXPECT_EQ(parsed("2h"), milliseconds{7'200'000});
  EXPECT_EQ(parsed("\"2s\""), milliseconds{2000});

  const auto read = [](const value& v) {
    return v.duration(milliseconds{10}, milliseconds{60'000});
  };
  const std::string expected = "expected a duration from 10ms to 1m, such as 500ms, 2s, 1m or 1h";
  EXPECT_EQ(one_error("v: 2", read), "f.yaml:1: v: '2' has no unit; " + expected);
  EXPECT_EQ(one_error("v: 2 s", read), "f.yaml:1: v: '2 s' is not a duration; " + expected);
  EXPECT_EQ(one_error("v: 1.5s", read), "f.yaml:1: v: '1.5s' is not a duration; " + expected);
  EXPECT_EQ(one_error("v: -2s", read), "f.yaml:1: v: '-2s' is not a duration; " + expected);
  EXPECT_EQ(one_error("v: s", read), "f.yaml:1: v: 's' is not a duration; " + expected);
  EXPECT_EQ(one_error("v: 9ms", read), "f.yaml:1: v: '9ms' is out of range; " + expected);
  EXPECT_EQ(one_error("v: 61s", read), "f.yaml:1: v: '61s' is out of range; " + expected);
  EXPECT_EQ(one_error("v: 99999999999999999h", read),
            "f.yaml:1: v: '99999999999999999h' is out of range; " + expected);
}

TEST(yaml_value, words_and_booleans) {
  const auto read = [](const value& v) {
    return v.word<int>({{"busy", 1}, {"yield", 2}, {"sleep", 3}});
  };
  EXPECT_EQ(one_error("v: yield", read), "");
  EXPECT_EQ(one_error("v: slep", read),
            "f.yaml:1: v: 'slep' is unknown; expected busy, yield or sleep (did you mean sleep?)");
  EXPECT_EQ(one_error("v: x", read), "f.yaml:1: v: 'x' is unknown; expected busy, yield or sleep");
  EXPECT_EQ(one_error("v: []", read),
            "f.yaml:1: v: a list is given; expected busy, yield or sleep");
  const auto boolean = [](const value& v) { return v.boolean(); };
  EXPECT_EQ(one_error("v: true", boolean), "");
  EXPECT_EQ(one_error("v: yes", boolean), "f.yaml:1: v: 'yes' is given; expected true or false");
}

TEST(yaml_map, reports_unknown_duplicate_and_missing_keys_all_at_once) {
  const auto d = document::parse("name: a\ntable_size: 5\nname: b\nzzz: 1\n", "f.yaml");
  ASSERT_TRUE(d);
  error_list errors{"f.yaml"};
  const auto m = d->root(errors).map({"name", "table-size", "port"});
  EXPECT_FALSE(m->require("port", "80"));
  EXPECT_EQ(to_string(errors.take()),
            "f.yaml:1: port: is missing; for example 80\n"
            "f.yaml:2: table_size: unknown key; did you mean table-size?\n"
            "f.yaml:3: name: is given twice; it is first given in line 1\n"
            "f.yaml:4: zzz: unknown key; known here are name, table-size or port");
}

TEST(yaml_map, a_merge_key_is_an_unknown_key) {
  const auto d = document::parse("a: &a {x: 1}\nb:\n  <<: *a\n", "f.yaml");
  ASSERT_TRUE(d);
  error_list errors{"f.yaml"};
  EXPECT_TRUE(d->root(errors).map({"a", "b"})->find("b")->map({"x"}));
  EXPECT_EQ(to_string(errors.take()), "f.yaml:3: b.<<: unknown key; known here are x");
}

TEST(yaml_errors, are_bounded_and_printable) {
  std::string text = "\"evil\\nkey\\x1b\": 1\n";
  for (std::size_t i = 0; i < max_errors + 10; ++i) text += "k" + std::to_string(i) + "zzzz: 1\n";
  const auto d = document::parse(text, "f.yaml");
  ASSERT_TRUE(d);
  error_list errors{"f.yaml"};
  ASSERT_TRUE(d->root(errors).map({"a"}));
  const auto all = errors.take();
  ASSERT_EQ(all.size(), max_errors + 1);
  EXPECT_EQ(all.back().to_string(), "f.yaml: and 11 more errors");
  EXPECT_EQ(all.front().to_string(), "f.yaml:1: evil key : unknown key; known here are a");
}

TEST(did_you_mean, finds_slips_only) {
  EXPECT_EQ(did_you_mean("wieght", {"weight", "tier"}), "weight");
  EXPECT_EQ(did_you_mean("Weight", {"weight", "tier"}), "weight");
  EXPECT_EQ(did_you_mean("backend", {"backends", "tier"}), "backends");
  EXPECT_EQ(did_you_mean("color", {"weight", "tier"}), "");
  EXPECT_EQ(did_you_mean("", {"weight"}), "");
  EXPECT_EQ(did_you_mean(std::string(100'000, 'x'), {"weight"}), "");
}

}  // namespace
}  // namespace sluice::yaml
