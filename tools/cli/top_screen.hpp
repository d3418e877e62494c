// SPDX-License-Identifier: Apache-2.0
// What `sluice top` shows, as lines of text: from what the API has answered, for a terminal of any
// size. Knows nothing of terminals.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/cli/client.hpp"

namespace sluice::cli {

// look: what the API says at one moment.
struct look {
  json status, services, backends, stats, workers, drops;
  std::chrono::steady_clock::time_point when{};
};

enum class top_view : std::uint8_t { services, workers, drops };
enum class line_style : std::uint8_t { plain, title, good, bad, dim };

struct top_line {
  std::string text;
  line_style style{line_style::plain};
};

struct top_page {
  std::vector<top_line> head;  // what stays
  std::vector<top_line> body;  // what is scrolled through
};

// make_page() shows `now`; rates are since `before`, whose status is null at first. With
// `folded` services have no lines for their backends.
[[nodiscard]] top_page make_page(const look& now, const look& before, top_view view, bool folded,
                                 std::size_t width);

// fit() cuts text to a width, or fills it; what is cut off at its front leaves a '~'.
[[nodiscard]] std::string fit(std::string text, std::size_t width, bool right = false);

}  // namespace sluice::cli
