// SPDX-License-Identifier: Apache-2.0
// run_replay() as a program of its own, for cross_check.py: NODE SERVICES IN OUT.
#include <iostream>

#include "tools/replay/replay.hpp"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: replay_main NODE SERVICES IN OUT\n";
    return 2;
  }
  return sluice::run_replay({argv[1], argv[2], argv[3], argv[4]}, std::cout, std::cerr);
}
