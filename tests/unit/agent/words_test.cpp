// SPDX-License-Identifier: Apache-2.0
// Every word of HAProxy's agent-check, as rows; what an agent does not say stays as it was.
#include "controlplane/agent/words.hpp"

#include <gtest/gtest.h>

namespace sluice::agent {
namespace {

struct row {
  const char* line;
  report said;
};

report up_is(bool up, std::string word, std::string text = {}) {
  return {.up = up, .word = std::move(word), .text = std::move(text)};
}

TEST(agent_words, rows) {
  const row rows[] = {
      {"75%\n", {.weight = asked_weight{75, true}}},
      {"0%", {.weight = asked_weight{0, true}}},
      {"150%", {.weight = asked_weight{150, true}}},
      {"40", {.weight = asked_weight{40, false}}},
      {"weight:40", {.weight = asked_weight{40, false}}},
      {"weight:40%", {.weight = asked_weight{40, true}}},
      {"99999999", {.weight = asked_weight{65535, false}}},
      {"maxconn:30\r\n", {.most_connections = 30}},
      {"maxconn:0", {.most_connections = 0}},
      {"ready", {.mode = mode::ready}},
      {"drain", {.mode = mode::drain}},
      {"maint", {.mode = mode::maint}},
      {"up", up_is(true, "up")},
      {"down", up_is(false, "down")},
      {"fail", up_is(false, "fail")},
      {"failed", up_is(false, "failed")},
      {"stopped", up_is(false, "stopped")},
      {"down#disk is full\n", up_is(false, "down", "disk is full")},
      {"down #  disk, full \t", up_is(false, "down", "  disk, full ?")},
      {"up 75% maxconn:10 ready",
       {.weight = asked_weight{75, true},
        .most_connections = 10,
        .mode = mode::ready,
        .up = true,
        .word = "up"}},
      {" \t,UP,,50%\tDrain",
       {.weight = asked_weight{50, true}, .mode = mode::drain, .up = true, .word = "up"}},
      {"up\ndown", up_is(true, "up")},  // one line
      {"\ndown", {}},
      {"", {}},
      {"#only this", {.text = "only this"}},
      {"down#a\x01\xff z", up_is(false, "down", "a?? z")},
      {"upp -5% 5%% maxconn:x maxconn: weight: 1.5 99999999999",
       {.unknown = {"upp", "-5%", "5%%", "maxconn:x", "maxconn:", "weight:", "1.5",
                    "99999999999"}}},
  };
  for (const row& r : rows) EXPECT_EQ(parse(r.line), r.said) << r.line;
}

TEST(agent_words, a_long_line_is_cut) {
  const report r = parse("down#" + std::string(5000, 'x'));
  EXPECT_EQ(r.up, false);
  EXPECT_EQ(r.text, std::string(longest_text, 'x'));
  std::string many;
  for (int i = 0; i < 300; ++i) many += "x ";
  EXPECT_EQ(parse(many).unknown.size(), 8u);
}

TEST(agent_words, what_is_not_said_is_as_before) {
  standing_report s;
  EXPECT_FALSE(s.take(parse("ready up")));  // it was so
  EXPECT_TRUE(s.take(parse("failed#no database 30%")));
  EXPECT_TRUE(s.down);
  EXPECT_EQ(s.word, "failed");
  EXPECT_EQ(s.text, "no database 30%");
  EXPECT_FALSE(s.weight);
  EXPECT_TRUE(s.take(parse("30% maxconn:7 drain")));
  EXPECT_TRUE(s.down);
  EXPECT_TRUE(s.take(parse("ready")));  // takes back drain, not down
  EXPECT_TRUE(s.down);
  EXPECT_EQ(s.mode, mode::ready);
  EXPECT_FALSE(s.take(parse("30%")));
  EXPECT_TRUE(s.take(parse("up")));
  EXPECT_FALSE(s.down);
  EXPECT_EQ(s.text, "");
  EXPECT_EQ(s.weight, (asked_weight{30, true}));
  EXPECT_EQ(s.most_connections, 7u);
}

}  // namespace
}  // namespace sluice::agent
