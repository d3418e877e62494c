// SPDX-License-Identifier: Apache-2.0
// Points in time as RFC 3339 text. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::backup {

// format_time() writes milliseconds since 1970 in UTC: "2026-11-21T23:45:00.123Z".
[[nodiscard]] std::string format_time(std::int64_t ms);
// parse_time() reads "2026-11-21T23:45:00[.fraction]" with Z or an offset such as +01:00; a
// space may stand for the T. Years 1970 to 9999.
[[nodiscard]] std::optional<std::int64_t> parse_time(std::string_view text);

}  // namespace sluice::backup
