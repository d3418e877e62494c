// SPDX-License-Identifier: Apache-2.0
// words: the line with which a backend answers an agent check, as HAProxy understands it:
// words between blanks, tabs or commas, in any order, of any case, up to the first CR or LF.
//
//   75%              that much of the configured weight
//   75, weight:75    a weight; the % may follow here, too
//   maxconn:N        new connections only while it has fewer than N
//   ready            takes back drain and maint
//   drain, maint     no new connections; not used at all
//   up               takes back down
//   down, fail, failed, stopped   not to be used
//   #...             after the last four: why, to the end of the line
//
// What a line does not say is as before (standing_report). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::agent {

enum class mode : std::uint8_t { ready, drain, maint };
[[nodiscard]] std::string_view to_string(mode m) noexcept;

struct asked_weight {
  std::uint32_t amount{};
  bool percent{};

  bool operator==(const asked_weight&) const = default;
};

// report: what one line says.
struct report {
  std::optional<asked_weight> weight;
  std::optional<std::uint32_t> most_connections;
  std::optional<agent::mode> mode;
  std::optional<bool> up;
  std::string word;  // of up: as it was said
  std::string text;  // after #
  std::vector<std::string> unknown;

  bool operator==(const report&) const = default;
};

inline constexpr std::size_t longest_line = 1024;
inline constexpr std::size_t longest_text = 256;

// parse() never fails: what is no word is listed as unknown.
[[nodiscard]] report parse(std::string_view line);

// standing_report: what an agent has said so far that it has not taken back.
struct standing_report {
  std::optional<asked_weight> weight;
  std::optional<std::uint32_t> most_connections;
  agent::mode mode{agent::mode::ready};
  bool down{false};
  std::string word;  // down: as it was said
  std::string text;  // down: why

  // take() applies one line; tells whether that changes anything.
  bool take(const report& r);
  bool operator==(const standing_report&) const = default;
};

}  // namespace sluice::agent
