// SPDX-License-Identifier: Apache-2.0
// Checks by a program: its exit code, its time, its family, and weights.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "controlplane/health/command_attempt.hpp"
#include "tests/unit/health/one_check.hpp"

namespace sluice::health {
namespace {

using namespace std::chrono_literals;
using test::one_check;

target shell(const std::string& text, bool weights = false) {
  target t = test::target_of(model::health_kind::exec, 80);
  t.check.command = {"/bin/sh", "-c", text, "check"};
  t.check.weights = weights;
  return t;
}

TEST(health_exec, the_exit_code_counts) {
  one_check one;
  verdict v = one.first(shell("exit 0"));
  EXPECT_TRUE(v.up);
  EXPECT_EQ(v.reason, "exit code 0");
  EXPECT_FALSE(v.weight);
  v = one.first(shell("exit 1"));
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "exit code 1");
  EXPECT_FALSE(one.first(shell("exit 77")).up);
  v = one.first(shell("kill -9 $$"));
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "killed by signal 9");
  target t = shell("");
  t.check.command = {"/does/not/exist"};
  EXPECT_EQ(one.first(t).reason, "/does/not/exist: no such file or directory");
}

TEST(health_exec, weights_as_keepalived_has_them) {
  one_check one;
  verdict v = one.first(shell("exit 77", true));
  EXPECT_TRUE(v.up);
  EXPECT_EQ(v.weight, 75U);
  EXPECT_EQ(v.reason, "exit code 77: weight 75");
  EXPECT_EQ(judge_exit(2, true).weight, 0U);
  EXPECT_EQ(judge_exit(255, true).weight, 253U);
  EXPECT_FALSE(judge_exit(0, true).weight);
  EXPECT_EQ(judge_exit(1, true).outcome, probe_outcome::failed);
}

TEST(health_exec, knows_whom_it_is_about_and_has_nothing_of_ours) {
  one_check one;
  EXPECT_TRUE(one.first(shell("[ \"$SLUICE_BACKEND:$SLUICE_PORT:$0\" = 127.0.0.1:80:check ]")).up);
  // No descriptor but the three, no environment of ours, its own group.
  ::setenv("SLUICE_SECRET", "x", 1);
  EXPECT_TRUE(one.first(shell("[ -z \"$SLUICE_SECRET\" ]")).up);
  EXPECT_TRUE(one.first(shell("[ ! -e /proc/$$/fd/3 ] && [ ! -e /proc/$$/fd/4 ]")).up);
  EXPECT_TRUE(one.first(shell("[ $(ps -o pgid= -p $$) = $$ ]")).up);
}

TEST(health_exec, runs_only_what_the_node_allows) {
  EXPECT_TRUE(model::may_run("/etc/sluice/checks/app", "/etc/sluice/checks"));
  EXPECT_TRUE(model::may_run("/etc/sluice/checks/a/b..c", "/etc/sluice/checks"));
  for (const char* bad :
       {"/bin/sh", "/etc/sluice/checks", "/etc/sluice/checks/", "/etc/sluice/checks2/app",
        "/etc/sluice/checks/../app", "/etc/sluice/checks/.."})
    EXPECT_FALSE(model::may_run(bad, "/etc/sluice/checks")) << bad;
  EXPECT_FALSE(model::may_run("/bin/sh", ""));
  for (const auto& [directory, up] : {std::pair{"/bin", true}, {"/usr/lib", false}, {"", false}}) {
    event_loop loop;
    checker_options options;
    options.programs_in = directory;
    std::optional<verdict> told;
    health_checker checker{loop,
                           [&](const target&, const verdict& v) {
                             told = v;
                             loop.stop();
                           },
                           options};
    checker.set_targets({{shell("exit 0"), health_state::unknown}});
    loop.run_for(2s);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->up, up) << directory;
    if (!up) {
      EXPECT_EQ(told->reason, "this node does not run /bin/sh");
    }
  }
}

TEST(health_exec, the_whole_group_goes_when_the_time_is_over) {
  char directory[] = "/tmp/command_test.XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string file = std::string{directory} + "/pids";
  one_check one;
  target t = shell("sleep 60 & echo $! $$ > " + file + "; wait");
  t.check.timeout = 300ms;
  const verdict v = one.first(t);
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "timeout after 300 ms, killed");
  one.loop.run_for(100ms);
  std::ifstream in{file};
  pid_t child = 0;
  pid_t leader = 0;
  in >> child >> leader;
  ASSERT_GT(leader, 0);
  EXPECT_EQ(::kill(leader, 0), -1) << "reaped, too";
  // The child is init's to reap; a zombie runs no more.
  std::ifstream state{"/proc/" + std::to_string(child) + "/stat"};
  std::string number, name, letter;
  state >> number >> name >> letter;
  EXPECT_TRUE(letter.empty() || letter == "Z" || letter == "X") << letter;
  std::filesystem::remove_all(directory);
}

TEST(health_exec, a_weight_that_changes_is_told) {
  char directory[] = "/tmp/command_test.XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string file = std::string{directory} + "/code";
  const auto say = [&](int code) { std::ofstream{file} << code << '\n'; };
  say(12);
  event_loop loop;
  std::vector<verdict> told;
  std::size_t wanted = 1;
  health_checker checker{loop, [&](const target&, const verdict& v) {
                           told.push_back(v);
                           if (told.size() == wanted) loop.stop();
                         }};
  target t = shell("exit $(cat " + file + ")", true);
  t.check.interval = 30ms;
  t.check.timeout = 30000ms;
  checker.set_targets({{t, health_state::unknown}});
  loop.run_for(2s);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].weight, 10U);
  EXPECT_EQ(checker.weight_of(t), 10U);
  loop.run_for(100ms);
  EXPECT_EQ(told.size(), 1U) << "the same again is no news";
  wanted = 2;
  say(22);
  loop.run_for(2s);
  ASSERT_EQ(told.size(), 2U);
  EXPECT_TRUE(told[1].up);
  EXPECT_EQ(told[1].weight, 20U);
  wanted = 3;
  say(1);
  loop.run_for(3s);
  ASSERT_EQ(told.size(), 3U);
  EXPECT_FALSE(told[2].up);
  EXPECT_FALSE(told[2].weight);
  EXPECT_FALSE(checker.weight_of(t));
  wanted = 4;
  say(0);
  loop.run_for(3s);
  ASSERT_EQ(told.size(), 4U);
  EXPECT_TRUE(told[3].up);
  EXPECT_FALSE(told[3].weight);
  std::filesystem::remove_all(directory);
}

TEST(health_exec, programs_wait_for_programs_only) {
  const test::listener server{test::address("127.0.0.1")};
  event_loop loop;
  checker_options options;
  options.max_programs = 1;
  int fast = 0;
  int slow = 0;
  health_checker checker{loop,
                         [&](const target& t, const verdict& v) {
                           if (!v.up) return;
                           ++(t.check.kind == model::health_kind::tcp ? fast : slow);
                           if (slow == 3) loop.stop();
                         },
                         options};
  std::vector<wanted_target> all{
      {test::target_of(model::health_kind::tcp, server.port()), health_state::unknown}};
  for (int i = 0; i < 3; ++i)
    all.push_back({shell("sleep 0.3; : " + std::to_string(i)), health_state::unknown});
  checker.set_targets(all);
  for (const auto& w : all) checker.probe_now(w.target);
  EXPECT_EQ(checker.counters().waiting, 2U);
  loop.run_for(200ms);
  EXPECT_EQ(fast, 1);
  EXPECT_EQ(slow, 0);
  loop.run_for(4s);
  EXPECT_EQ(slow, 3);
}

}  // namespace
}  // namespace sluice::health
