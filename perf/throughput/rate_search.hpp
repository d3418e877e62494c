// SPDX-License-Identifier: Apache-2.0
// The highest rate that passes, by bisection (RFC 2544, section 26.1).
#pragma once

#include <utility>

namespace sluice::perf {

struct rate_range {
  double highest{0};     // where the search begins
  double lowest{0};      // where it gives up
  double resolution{0};  // relative; the answer is this close to the first rate that fails
};

// search_rate() asks `passes(rate)` of rates in the range; returns the highest that passed, 0 for
// none. With a machine that changes its mind between trials the answer is still one that passed.
template <class Passes>
double search_rate(const rate_range& range, Passes&& passes) {
  double low = 0;
  double high = range.highest;
  if (passes(high)) return high;
  while (high - low > range.resolution * high && high > range.lowest) {
    const double rate = (low + high) / 2;
    (passes(rate) ? low : high) = rate;
  }
  return low;
}

}  // namespace sluice::perf
