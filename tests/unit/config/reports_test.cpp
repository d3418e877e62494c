// SPDX-License-Identifier: Apache-2.0
// The keys about what backends say of themselves: read, refused, and set one by one.
#include <gtest/gtest.h>

#include "controlplane/config/config.hpp"

namespace sluice::config {
namespace {

using namespace std::chrono_literals;

std::string service_that_reports(const std::string& keys) {
  return "services:\n- {name: a, address: 192.0.2.1, port: 80, forward: dsr-l2, " + keys + "}\n";
}

std::string errors_of_reports(const std::string& keys) {
  const auto state = parse_services(service_that_reports(keys), "f", {});
  return state ? std::string{} : to_string(state.error());
}

TEST(reports, are_read) {
  const auto state = parse_services(
      service_that_reports(
          "agent: {port: 9, send: \"x\\n\", interval: 500ms}, heartbeat: {interval: 5s}, "
          "weights: {smoothing: 0ms, max-step: 50}, quorum: {percent: 60, hold: 5s}, backends: "
          "[{address: 10.0.0.1, sorry: true}, {address: 10.0.0.2, max-connections: 7}]"),
      "f", {});
  ASSERT_TRUE(state) << to_string(state.error());
  const model::service& s = state->services[0];
  EXPECT_EQ(s.agent, (model::agent_check{9, "x\n", 500ms, 500ms}));
  EXPECT_EQ(s.heartbeat, (model::heartbeat{5s, 3}));
  EXPECT_EQ(s.weights, (model::weight_steering{0ms, 5, 50, 2s}));
  EXPECT_EQ(s.quorum, (model::quorum{60, 0, 5s}));
  EXPECT_TRUE(s.backends[0].sorry);
  EXPECT_EQ(s.backends[1].max_connections, 7u);
  const auto changed = parse_service(
      "{agent: {interval: 3s}, heartbeat: off, quorum: {hysteresis: 5}}", "f", {}, &s);
  ASSERT_TRUE(changed) << to_string(changed.error());
  EXPECT_EQ(changed->agent, (model::agent_check{9, "x\n", 3s, 500ms}));
  EXPECT_TRUE(changed->heartbeat.off());
  EXPECT_EQ(changed->quorum, (model::quorum{60, 5, 5s}));
  const auto backend = parse_backend("{max-connections: none}", "f", &s.backends[1]);
  ASSERT_TRUE(backend) << to_string(backend.error());
  EXPECT_EQ(backend->max_connections, 0u);
}

TEST(reports, errors) {
  const struct {
    const char* keys;
    const char* error;
  } rows[] = {
      {"agent: {interval: 2s}", "f:2: services[0].agent.port: is missing; for example 9777"},
      {"agent: {port: 1, interval: 1s, timeout: 2s}",
       "f:2: services[0].agent.timeout: is longer than the interval (1s); expected at most that"},
      {"heartbeat: {missing: 2}",
       "f:2: services[0].heartbeat.interval: is missing; for example 5s"},
      {"weights: {dead-band: 30}",
       "f:2: services[0].weights.dead-band: the largest step is smaller than the dead band; "
       "expected max-step of at least 30"},
      {"scheduler: random, weights: {smoothing: 1s}",
       "f:2: services[0].weights: has no effect with scheduler: random; expected it only with "
       "schedulers that take weights"},
      {"quorum: {percent: 101}",
       "f:2: services[0].quorum.percent: '101' is out of range; expected a whole number from 0 to "
       "100"},
  };
  for (const auto& r : rows) EXPECT_EQ(errors_of_reports(r.keys), r.error) << r.keys;
}

}  // namespace
}  // namespace sluice::config
