// SPDX-License-Identifier: Apache-2.0
// unused: which things in the arena no reader can use any more, from the newest generation
// that refers to each. Asks the readers about few generations, however many things there are.
#pragma once

#include <cstdint>

#include "controlplane/publish/reader_watch.hpp"

namespace sluice::publish {

class unused {
 public:
  unused(std::uint64_t current, reader_watch& watch) noexcept : current_{current}, watch_{&watch} {}

  // What no generation has referred to yet (0) is unused, too.
  [[nodiscard]] bool operator()(std::uint64_t last_generation) {
    if (last_generation >= current_) return false;
    const std::uint64_t number = last_generation + 1;
    if (last_generation == 0 || number <= free_below_) return true;
    if (number >= used_from_) return false;
    const bool quiet = watch_->quiescent(number);
    (quiet ? free_below_ : used_from_) = number;
    return quiet;
  }

 private:
  std::uint64_t current_;
  reader_watch* watch_;
  std::uint64_t free_below_{0};                 // nothing older is in use
  std::uint64_t used_from_{~std::uint64_t{0}};  // something from here on may be
};

}  // namespace sluice::publish
