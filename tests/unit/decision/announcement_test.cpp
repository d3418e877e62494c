// SPDX-License-Identifier: Apache-2.0
#include "controlplane/decision/announcement.hpp"

#include <gtest/gtest.h>

#include <random>

namespace sluice::decision {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 3s;

time_point at(std::chrono::milliseconds ms) {
  return time_point{} + 1h + ms;
}

TEST(announcement, believes_what_is_found_first) {
  EXPECT_TRUE(judge_node(true, {}, patience, at(0ms)).next.able);
  EXPECT_FALSE(judge_node(false, {}, patience, at(0ms)).next.able);
}

TEST(announcement, waits_both_ways) {
  node_memory m = judge_node(true, {}, patience, at(0ms)).next;
  auto v = judge_node(false, m, patience, at(1000ms));
  EXPECT_TRUE(v.next.able);
  EXPECT_EQ(v.again, at(4000ms));
  EXPECT_TRUE(judge_node(false, v.next, patience, at(3999ms)).next.able);
  m = judge_node(false, v.next, patience, at(4000ms)).next;
  EXPECT_FALSE(m.able);
  v = judge_node(true, m, patience, at(5000ms));
  EXPECT_FALSE(v.next.able);
  EXPECT_EQ(v.again, at(8000ms));
  // A break, and it begins anew.
  m = judge_node(false, v.next, patience, at(7000ms)).next;
  v = judge_node(true, m, patience, at(7500ms));
  EXPECT_FALSE(judge_node(true, v.next, patience, at(10'400ms)).next.able);
  EXPECT_TRUE(judge_node(true, v.next, patience, at(10'500ms)).next.able);
}

TEST(announcement, a_short_break_is_no_break) {
  node_memory m = judge_node(true, {}, patience, at(0ms)).next;
  for (int i = 1; i < 10; ++i) {
    m = judge_node(false, m, patience, at(10'000ms * i)).next;
    m = judge_node(true, m, patience, at(10'000ms * i + 2900ms)).next;
    EXPECT_TRUE(m.able);
  }
}

// What was decided changes only after what was found has been the opposite for so long, whenever
// it is asked; and asking more often changes nothing.
TEST(announcement, changes_only_after_patience) {
  std::mt19937 random{7};
  for (int run = 0; run < 200; ++run) {
    node_memory m = judge_node(run % 2 == 0, {}, patience, at(0ms)).next;
    auto found_since = 0ms;
    bool found = m.forwarding;
    auto now = 0ms;
    for (int step = 0; step < 100; ++step) {
      now += std::chrono::milliseconds{random() % 1500};
      if (random() % 3 == 0) {
        found = !found;
        found_since = now;
      }
      const node_memory before = m;
      m = judge_node(found, m, patience, at(now)).next;
      EXPECT_EQ(judge_node(found, m, patience, at(now)).next, m);
      if (m.able != before.able) {
        EXPECT_EQ(m.able, found);
        EXPECT_GE(now - found_since, patience);
      } else if (now - found_since >= patience) {
        EXPECT_EQ(m.able, found);
      }
    }
  }
}

TEST(announcement, says_what_comes_first) {
  const node_memory able{true, true, true, {}};
  const node_memory unable{true, false, false, {}};
  EXPECT_EQ(judge_address(able, false, true), announcement::announced);
  EXPECT_EQ(judge_address(able, false, false), announcement::below_quorum);
  EXPECT_EQ(judge_address(unable, false, true), announcement::not_forwarding);
  EXPECT_EQ(judge_address(able, true, true), announcement::drained);
  EXPECT_EQ(judge_address(unable, true, false), announcement::drained);
}

}  // namespace
}  // namespace sluice::decision
