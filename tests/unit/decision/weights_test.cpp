// SPDX-License-Identifier: Apache-2.0
// What holds for weights that backends ask for, whatever they ask for and when.
#include "controlplane/decision/weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace sluice::decision {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

struct play {
  model::weight_steering how{};
  std::vector<std::optional<double>> asked;
  std::vector<std::optional<steered>> backends;
  steering_memory memory{};
  time_point now{1h};
  std::optional<time_point> again{};

  explicit play(std::size_t n) : asked(n), backends(n) {}
  std::vector<double> after(milliseconds d) {
    now += d;
    again = steer(how, asked, backends, memory, now);
    std::vector<double> used;
    for (const auto& b : backends) used.push_back(b ? b->used : 1);
    return used;
  }
};

TEST(weights, a_report_that_jitters_changes_nothing) {
  play p{1};
  p.how = {10s, 5, 25, 2s};
  std::mt19937 random{7};
  p.asked[0] = 0.5;
  for (int i = 0; i < 200; ++i) p.after(1s);
  const double settled = p.after(1s)[0];
  EXPECT_NEAR(settled, 0.5, 0.05);
  int changes = 0;
  double before = settled;
  for (int i = 0; i < 3600; ++i) {
    p.asked[0] = 0.5 + (static_cast<double>(random() % 1000) - 500) / 5000;  // 40% to 60%
    const double now = p.after(1s)[0];
    changes += now != before ? 1 : 0;
    before = now;
  }
  EXPECT_LE(changes, 36) << "once in 100 reports at most";
}

TEST(weights, a_load_that_follows_the_weight_comes_to_rest) {
  // The backend's load is in proportion to what it is given: the loop must not swing.
  for (const double capacity : {0.3, 0.6, 1.0, 1.8}) {
    play p{1};
    double load = 0;
    int changes = 0;
    double used = 1;
    for (int i = 0; i < 600; ++i) {
      p.asked[0] = std::max(1 - load, 0.01);
      const double now = p.after(1s)[0];
      changes += i > 200 && now != used ? 1 : 0;
      used = now;
      load = std::min(used * capacity, 1.0);
    }
    EXPECT_EQ(changes, 0) << capacity;
    EXPECT_NEAR(used, 1 / (1 + capacity), 0.08) << capacity;
  }
}

TEST(weights, properties) {
  for (unsigned seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
    play p{below(4) + 1};
    const unsigned band = below(20);
    p.how = {milliseconds{below(2) * below(8000)}, static_cast<std::uint8_t>(band),
             static_cast<std::uint8_t>(std::max(band, 1u) + below(60)), milliseconds{below(4000)}};
    std::optional<time_point> stepped;
    for (int step = 0; step < 150; ++step) {
      for (auto& a : p.asked)
        if (below(4) == 0) {
          if (below(6) == 0)
            a.reset();
          else
            a = below(8) == 0 ? 0.0 : below(5) == 0 ? 1.0 : below(300) / 100.0;
        }
      const auto before = p.backends;
      p.after(milliseconds{below(1200)});
      bool stepped_now = false;
      for (std::size_t i = 0; i < p.backends.size(); ++i) {
        const auto& b = p.backends[i];
        if (!b) continue;
        const double old = before[i] ? before[i]->used : 1;
        EXPECT_GE(b->used, 0);
        EXPECT_LE(b->used, largest_part);
        if (*p.asked[i] == 0) {
          EXPECT_EQ(b->used, 0);
          continue;
        }
        if (b->used == old) continue;
        stepped_now = true;
        EXPECT_LE(std::abs(b->used - old), p.how.max_step / 100.0 * std::max(1.0, old) + 1e-9);
        // Towards what is asked for, as far as it was smoothed.
        EXPECT_LE(std::abs(b->used - b->smoothed), std::abs(old - b->smoothed) + 0.006);
      }
      if (stepped_now) {
        if (stepped) {
          EXPECT_GE(p.now - *stepped, p.how.interval);
        }
        stepped = p.now;
      }
      // Asking twice makes no difference, nor does time before `again`.
      auto copy = p;
      EXPECT_EQ(copy.after(0ms), p.after(0ms));
      EXPECT_EQ(copy.backends, p.backends);
      if (p.again) {
        EXPECT_GT(*p.again, p.now);
        copy.now = *p.again - 1ns;
        const auto used = p.after(0ms);
        EXPECT_EQ(copy.after(0ms), used);
      }
      if (::testing::Test::HasFailure()) return;
    }
    // Left alone it comes to rest, as near as the dead band, and is not to be asked again.
    for (int i = 0; i < 3000; ++i) p.after(1s);
    EXPECT_FALSE(p.again);
    for (std::size_t i = 0; i < p.backends.size(); ++i)
      if (p.asked[i]) {
        EXPECT_LE(std::abs(p.backends[i]->used - *p.asked[i]),
                  std::max(band / 100.0, 0.005) + 1e-6);
        if (*p.asked[i] == 1.0) {
          EXPECT_EQ(p.backends[i]->used, 1.0);
        }
      }
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace sluice::decision
