// SPDX-License-Identifier: Apache-2.0
// What the tests of health_checker have in common: targets, and a checker whose verdicts are kept.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "controlplane/health/health_checker.hpp"
#include "tests/unit/health/test_servers.hpp"

namespace sluice::health {

using namespace std::chrono_literals;
using model::milliseconds;
using test::address;
using test::http_server;
using test::listener;
using manner = http_server::manner;
using clock = event_loop::clock;

inline const ip_address local = address("127.0.0.1");

inline std::string answer(int status) {
  return "HTTP/1.1 " + std::to_string(status) + " x\r\nContent-Length: 0\r\n\r\n";
}

inline target tcp(const ip_address& a, std::uint16_t port, milliseconds interval = 50ms,
                  milliseconds timeout = 500ms, std::uint32_t rise = 2, std::uint32_t fall = 3) {
  target t;
  t.address = a;
  t.port = port;
  t.check.kind = model::health_kind::tcp;
  t.check.interval = interval;
  t.check.timeout = timeout;
  t.check.rise = rise;
  t.check.fall = fall;
  return t;
}

inline target http(const ip_address& a, std::uint16_t port, milliseconds interval = 50ms,
                   milliseconds timeout = 500ms, std::uint32_t rise = 2, std::uint32_t fall = 3) {
  target t = tcp(a, port, interval, timeout, rise, fall);
  t.check.kind = model::health_kind::http;
  return t;
}

struct told {
  target what;
  bool up;
  std::string reason;
  std::uint64_t checks;  // how many there were by then
  clock::time_point at;
};

struct bench {
  explicit bench(checker_options options = {})
      : checker{loop,
                [this](const target& t, const verdict& v) {
                  std::uint64_t checks = 0;
                  for (const target_status& s : checker.snapshot())
                    if (s.target == t) checks = s.checks;
                  verdicts.push_back({t, v.up, v.reason, checks, clock::now()});
                  if (verdicts.size() >= wanted) loop.stop();
                },
                std::move(options)} {}

  void set(const std::vector<target>& targets, health_state initial = health_state::unknown) {
    std::vector<wanted_target> all;
    for (const target& t : targets) all.push_back({t, initial});
    checker.set_targets(all);
  }
  // Until so many verdicts were told; false after the time.
  bool until(std::size_t count, event_loop::duration limit = 2s) {
    wanted = count;
    if (verdicts.size() < wanted) loop.run_for(limit);
    return verdicts.size() >= count;
  }
  target_status status(const target& t) {
    for (const target_status& s : checker.snapshot())
      if (s.target == t) return s;
    ADD_FAILURE() << "no such target";
    return {};
  }

  event_loop loop;
  std::size_t wanted{SIZE_MAX};
  std::vector<told> verdicts;
  health_checker checker;
};

// One target, from unknown to its first verdict.
inline told first_verdict(const target& t) {
  bench b;
  b.set({t});
  if (!b.until(1)) {
    ADD_FAILURE() << "no verdict";
    return {};
  }
  EXPECT_EQ(b.verdicts[0].checks, 1U);
  EXPECT_EQ(b.status(t).last_result, b.verdicts[0].reason);
  return b.verdicts[0];
}

}  // namespace sluice::health
