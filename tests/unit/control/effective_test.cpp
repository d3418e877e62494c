// SPDX-License-Identifier: Apache-2.0
// Which backends take new connections, and which keep theirs.
#include "controlplane/publish/effective.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/control/control_fixtures.hpp"

namespace sluice::publish {
namespace {

using abi::shown_health;
using test::v4;

struct row {
  std::uint32_t weight;
  std::uint8_t tier;
  bool drain;
  shown_health health;
  bool hop;
  std::uint32_t effective;  // expected
  bool keeps;               // expected
};

void check(const char* what, const std::vector<row>& rows, bool panic) {
  model::service s;
  s.name = "x";
  s.health.kind = model::health_kind::tcp;
  std::vector<condition> conditions;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    s.backends.push_back({v4(10, 0, 0, static_cast<unsigned>(i) + 1), rows[i].weight, rows[i].tier,
                          rows[i].drain ? model::admin_state::drain : model::admin_state::enabled});
    conditions.push_back({rows[i].health, rows[i].hop ? std::optional{hop{}} : std::nullopt});
  }
  const auto out = effective(s, conditions);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(out.backends[i].effective_weight, rows[i].effective) << what << ", row " << i;
    EXPECT_EQ(out.backends[i].keeps_connections, rows[i].keeps) << what << ", row " << i;
  }
  EXPECT_EQ(panics(out), panic) << what;
  const bool serves =
      std::any_of(rows.begin(), rows.end(), [](const row& r) { return r.effective != 0; });
  EXPECT_EQ(out.answers_echo, serves && !panic) << what;
}

constexpr auto up = shown_health::up;
constexpr auto down = shown_health::down;
constexpr auto unknown = shown_health::unknown;

TEST(effective, rules) {
  check("all up", {{100, 0, false, up, true, 100, true}, {50, 0, false, up, true, 50, true}},
        false);
  check("one down", {{100, 0, false, up, true, 100, true}, {50, 0, false, down, true, 0, false}},
        false);
  check("drained keeps its connections",
        {{100, 0, false, up, true, 100, true}, {50, 0, true, up, true, 0, true}}, false);
  check("drained and down does not",
        {{100, 0, false, up, true, 100, true}, {50, 0, true, down, true, 0, false}}, false);
  check("weight 0", {{100, 0, false, up, true, 100, true}, {0, 0, false, up, true, 0, true}},
        false);
  check("unknown is not up",
        {{100, 0, false, up, true, 100, true}, {50, 0, false, unknown, true, 0, true}}, false);
  check("no next hop", {{100, 0, false, up, true, 100, true}, {50, 0, false, up, false, 0, true}},
        false);
  check("backup tier waits",
        {{100, 0, false, up, true, 100, true}, {50, 1, false, up, true, 0, true}}, false);
  check("backup tier steps in",
        {{100, 0, false, down, true, 0, false}, {50, 1, false, up, true, 50, true}}, false);
  check("backup tier steps in for a drained tier",
        {{100, 0, true, up, true, 0, true}, {50, 1, false, up, true, 50, true}}, false);
  check("panic: all down",
        {{100, 0, false, down, true, 100, true}, {50, 0, false, down, true, 50, true}}, true);
  check("panic: as if all were up, so the first tier",
        {{100, 0, false, down, true, 100, true}, {50, 1, false, down, true, 0, false}}, true);
  check("panic leaves out what cannot be reached",
        {{100, 0, false, down, true, 100, true}, {50, 0, false, up, false, 0, true}}, true);
  check("panic: nothing can be reached", {{100, 0, false, up, false, 100, true}}, true);
  check("panic at the start", {{100, 0, false, unknown, true, 100, true}}, true);
  check("all drained", {{100, 0, true, up, true, 0, true}}, false);
  check("no backends", {}, false);
}

TEST(effective, unchecked) {
  model::service s;
  s.name = "x";
  s.backends.push_back({v4(10, 0, 0, 1)});
  const std::vector<condition> conditions{{down, hop{}}};
  const auto out = effective(s, conditions);
  EXPECT_EQ(out.backends[0].health, shown_health::unchecked);
  EXPECT_EQ(out.backends[0].effective_weight, 100u);
}

TEST(effective, mss_clamp_fits_the_narrowest_path) {
  const auto clamp = [](model::forward_mode mode, const ip_address& vip,
                        const std::vector<std::pair<ip_address, int>>& backends) {
    model::service s;
    s.name = "x";
    s.address = vip;
    s.forward = mode;
    s.mss_clamp.automatic = true;
    std::vector<condition> conditions;
    for (const auto& [address, mtu] : backends) {
      s.backends.push_back({.address = address});
      conditions.emplace_back();
      if (mtu != 0) conditions.back().next_hop = hop{{}, 0, static_cast<std::uint16_t>(mtu)};
    }
    return effective(s, conditions).mss_clamp;
  };
  using model::forward_mode;
  const ip_address vip4 = v4(192, 0, 2, 1);
  const ip_address vip6 = ip_address::v6({0x20, 1, 0xd, 0xb8});
  const ip_address b4 = v4(10, 0, 0, 1);
  const ip_address b6 = ip_address::v6({0xfd});
  EXPECT_EQ(clamp(forward_mode::dsr_l2, vip4, {{b4, 1500}}), 1460);
  EXPECT_EQ(clamp(forward_mode::full_nat, vip6, {{b6, 1500}}), 1440);
  EXPECT_EQ(clamp(forward_mode::ipip, vip4, {{b4, 1500}}), 1440);
  EXPECT_EQ(clamp(forward_mode::ipip, vip4, {{b4, 1500}, {b6, 1500}}), 1420);
  EXPECT_EQ(clamp(forward_mode::ipip, vip6, {{b6, 1500}}), 1400);
  EXPECT_EQ(clamp(forward_mode::gre, vip4, {{b4, 1500}, {b4, 9000}}), 1436);
  EXPECT_EQ(clamp(forward_mode::gue, vip4, {{b4, 1500}, {b4, 0}}), 1432);
  EXPECT_EQ(clamp(forward_mode::gue, vip4, {{b4, 0}}), 0);
}

}  // namespace
}  // namespace sluice::publish
