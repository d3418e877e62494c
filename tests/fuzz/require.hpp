// SPDX-License-Identifier: Apache-2.0
// require() ends a fuzz target with what does not hold.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace sluice::test {

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace sluice::test
