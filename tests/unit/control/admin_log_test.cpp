// SPDX-License-Identifier: Apache-2.0
// Who drained or forced a backend: as it happens, and from the history after a restart.
#include "controlplane/reconcile/admin_log.hpp"

#include <gtest/gtest.h>

#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::reconcile {
namespace {

using model::admin_state;
using test::v4;

model::desired_state with(admin_state first, admin_state second) {
  model::service s;
  s.name = "web";
  s.address = v4(198, 51, 100, 10);
  s.port = {80, 80};
  s.backends = {{.address = v4(10, 0, 0, 1), .admin = first},
                {.address = v4(10, 0, 0, 2), .admin = second}};
  return {{s}};
}

TEST(admin_log, is_the_same_after_a_restart) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("admin_log_test." + std::to_string(::getpid()));
  std::filesystem::create_directory(directory);
  auto file = store::state_store::open((directory / "state.db").string());
  ASSERT_TRUE(file) << file.error();
  {
    state_keeper keeper{std::move(*file)};
    admin_log log;
    model::desired_state now;
    const auto change = [&](const model::desired_state& next, const char* author) {
      const auto number = keeper.commit(next, author, "why", 1, next);
      ASSERT_TRUE(number) << number.error();
      const auto stored = keeper.history(1);
      ASSERT_TRUE(stored) << stored.error();
      log.note(now, next, {*number, stored->front().time, author, "why"});
      now = next;
    };
    using enum admin_state;
    change(with(enabled, drain), "alice");  // drained from the beginning
    change(with(up, drain), "bob");
    change(with(down, drain), "carol");
    EXPECT_FALSE(admin_log::concerns(now, now));
    change(with(down, drain), "dave");  // changes nothing of that
    ASSERT_EQ(log.all().size(), 2u);
    EXPECT_EQ(log.all().at({"web", v4(10, 0, 0, 1)}).author, "carol");
    EXPECT_EQ(log.all().at({"web", v4(10, 0, 0, 2)}).revision, 1u);

    admin_log restored;
    restored.restore(keeper, now);
    ASSERT_EQ(restored.all().size(), log.all().size());
    for (const auto& [key, by] : log.all()) {
      const auto& same = restored.all().at(key);
      EXPECT_EQ(same.revision, by.revision);
      EXPECT_EQ(same.author, by.author);
      EXPECT_EQ(same.reason, by.reason);
      EXPECT_EQ(same.time, by.time);
    }

    change(with(enabled, drain), "erin");
    EXPECT_EQ(log.all().size(), 1u);
    admin_log later;
    later.restore(keeper, now);
    EXPECT_EQ(later.all().size(), 1u);
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace sluice::reconcile
