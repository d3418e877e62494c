// SPDX-License-Identifier: Apache-2.0
// What the readers of a keepalived.conf's blocks have in common, and the one of health checks.
// For the files of this folder.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/model/health.hpp"
#include "tools/import/draft.hpp"
#include "tools/import/words.hpp"

namespace sluice::importing {

// Keys that are known, and why there is nothing for them. An empty reason: there is nothing to
// carry over, as Sluice does so anyway.
struct known_key {
  std::string_view key;
  std::string_view why;
};
template <std::size_t N>
[[nodiscard]] const known_key* find_key(const std::array<known_key, N>& keys,
                                        std::string_view key) {
  const auto* it =
      std::find_if(keys.begin(), keys.end(), [key](const known_key& k) { return k.key == key; });
  return it == keys.end() ? nullptr : it;
}

// timing: what keepalived repeats at each level, the innermost of which counts.
struct timing {
  std::chrono::milliseconds interval{60'000};  // delay_loop
  std::chrono::milliseconds timeout{5'000};    // connect_timeout
  std::uint32_t retry{1};
};

// seconds() reads "10" or "2.5"; nothing: it is no time of up to an hour.
[[nodiscard]] std::optional<std::chrono::milliseconds> seconds(std::string_view text);
// joined() is a statement's words.
[[nodiscard]] std::string joined(const statement& s);
// left_out() tells of a key that has nowhere to go.
void left_out(draft& d, const statement& s, const std::string& where);
// read_timing() takes what it knows; true: it was one of these keys.
bool read_timing(draft& d, const statement& s, const std::string& where, timing& t);

// is_check() tells whether a block is a health check.
[[nodiscard]] bool is_check(std::string_view key);
// read_check() makes a health check of a block; null: of none.
[[nodiscard]] model::health_check read_check(draft& d, const statement* check,
                                             const std::string& where, timing times,
                                             const std::string& host);

}  // namespace sluice::importing
