// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/judge.hpp"

#include <gtest/gtest.h>

#include <string>

namespace sluice::health {
namespace {

struct row {
  const char* what;
  health_state seed;
  std::uint32_t rise, fall;
  const char* results;   // '+' success, '-' failure
  const char* verdicts;  // per result: 'U' or 'D' told, '.' nothing told
  const char* states;    // per result: u(p), d(own)
  const char* doubts;    // per result: '?' in doubt
};

constexpr auto none = health_state::unknown;

const row rows[] = {
    {"unknown: the first result decides, up", none, 3, 3, "+", "U", "u", " "},
    {"unknown: the first result decides, down", none, 3, 3, "-", "D", "d", " "},
    {"fall counts exactly", none, 2, 3, "+---", "U..D", "uuud", " ?? "},
    {"rise counts exactly", none, 3, 3, "-+++", "D..U", "dddu", " ?? "},
    {"a success in between starts the count anew", none, 2, 3, "+--+---", "U.....D", "uuuuuud",
     " ?? ?? "},
    {"a failure in between starts the count anew", none, 2, 3, "-+-++", "D...U", "ddddu", " ? ? "},
    {"fall 1, rise 1", none, 1, 1, "+-+-", "UDUD", "udud", "    "},
    {"0 counts as 1", none, 0, 0, "+-+", "UDU", "udu", "   "},
    {"told once only", none, 2, 2, "+++", "U..", "uuu", "   "},
    {"seeded up, confirmed", health_state::up, 2, 3, "++", "U.", "uu", "  "},
    {"seeded up, falls by the rule", health_state::up, 2, 3, "---", "..D", "uud", "?? "},
    {"seeded up, one failure, then confirmed", health_state::up, 2, 3, "-+", ".U", "uu", "? "},
    {"seeded down, rises by the rule", health_state::down, 2, 3, "++", ".U", "du", "? "},
    {"seeded down, confirmed", health_state::down, 2, 3, "-", "D", "d", " "},
};

TEST(judge, rows) {
  for (const row& r : rows) {
    judge j{r.seed};
    std::string verdicts, states, doubts;
    for (const char c : std::string_view{r.results}) {
      const bool told = j.record(c == '+', r.rise, r.fall);
      const bool up = j.state() == health_state::up;
      verdicts += !told ? '.' : up ? 'U' : 'D';
      states += up ? 'u' : 'd';
      doubts += j.in_doubt() ? '?' : ' ';
    }
    EXPECT_EQ(verdicts, r.verdicts) << r.what;
    EXPECT_EQ(states, r.states) << r.what;
    EXPECT_EQ(doubts, r.doubts) << r.what;
  }
}

TEST(judge, nothing_is_in_doubt_before_a_result) {
  EXPECT_FALSE(judge{}.in_doubt());
  EXPECT_FALSE(judge{health_state::up}.in_doubt());
  EXPECT_FALSE(judge{health_state::down}.in_doubt());
}

}  // namespace
}  // namespace sluice::health
