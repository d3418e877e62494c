// SPDX-License-Identifier: Apache-2.0
#include "controlplane/decision/weights.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace sluice::decision {
namespace {

constexpr double full_part = 1;
constexpr double nearly = 0.005;  // as good as equal

time_point on_grid(time_point t) {
  const auto rest = t.time_since_epoch() % steering_grid;
  return rest.count() == 0 ? t : t + (steering_grid - rest);
}

// pass_time() smooths what was asked for up to now.
void pass_time(steered& b, const model::weight_steering& how, time_point now) {
  if (how.smoothing.count() == 0) {
    b.smoothed = b.asked;
  } else if (now > b.at) {
    const std::chrono::duration<double> passed = now - b.at;
    const std::chrono::duration<double> constant = how.smoothing;
    b.smoothed += (b.asked - b.smoothed) * -std::expm1(-passed / constant);
  }
  b.at = std::max(b.at, now);
}

struct limits {
  double band;
  double step;

  explicit limits(const model::weight_steering& how)
      : band{std::max(how.dead_band / 100.0, nearly)}, step{how.max_step / 100.0} {}
  [[nodiscard]] bool differs(double wanted, double used) const {
    return std::abs(wanted - used) >= band;
  }
  // moves() tells whether time alone may bring another weight.
  [[nodiscard]] bool moves(const steered& b) const {
    return differs(b.asked, b.used) || differs(b.smoothed, b.used) ||
           (b.asked == full_part && b.used != full_part);
  }
  [[nodiscard]] double next(const steered& b) const {
    double wanted = b.smoothed;
    if (b.asked == full_part && std::abs(wanted - full_part) < nearly) wanted = full_part;
    const bool ends = wanted == full_part && b.asked == full_part;
    if (!ends && !differs(wanted, b.used)) return b.used;
    // Half a band short: a load that follows the weight would swing about it else.
    if (!ends) wanted += wanted > b.used ? -band / 2 : band / 2;
    // What is above the configured weight would take for ever in parts of that.
    const double most = step * std::max(full_part, b.used);
    return b.used + std::clamp(wanted - b.used, -most, most);
  }
};

}  // namespace

std::optional<time_point> steer(const model::weight_steering& how,
                                std::span<const std::optional<double>> asked,
                                std::span<std::optional<steered>> backends,
                                steering_memory& service, time_point now) {
  assert(asked.size() == backends.size());
  const limits allow{how};
  bool moves = false;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    std::optional<steered>& b = backends[i];
    if (!asked[i]) {
      b.reset();
      continue;
    }
    if (!b) b = steered{.at = now};
    pass_time(*b, how, now);
    b->asked = std::clamp(*asked[i], 0.0, largest_part);
    if (how.smoothing.count() == 0) b->smoothed = b->asked;
    if (b->asked == 0) b->smoothed = b->used = 0;
    moves = moves || allow.moves(*b);
  }
  if (!moves) {
    service.next.reset();
    return std::nullopt;
  }
  if (!service.next) service.next = on_grid(std::max(now, service.stepped + how.interval));
  if (now < *service.next) return service.next;
  service.stepped = now;
  moves = false;
  for (std::optional<steered>& b : backends) {
    if (!b) continue;
    b->used = allow.next(*b);
    moves = moves || allow.moves(*b);
  }
  service.next.reset();
  if (!moves) return std::nullopt;
  // At least the grid: the moment of now is over.
  service.next = on_grid(now + std::max<std::chrono::nanoseconds>(how.interval, steering_grid));
  return service.next;
}

}  // namespace sluice::decision
