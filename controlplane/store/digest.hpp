// SPDX-License-Identifier: Apache-2.0
// SHA-256 of revisions and backups: what finds a flipped bit, and what two histories are
// compared by. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::store {

using digest = std::array<std::uint8_t, 32>;

[[nodiscard]] digest sha256(std::string_view bytes);
// to_hex() writes 64 digits; from_hex() reads exactly that, in lower case.
[[nodiscard]] std::string to_hex(const digest& d);
[[nodiscard]] std::optional<digest> from_hex(std::string_view text);
// bytes_of() and from_bytes() are for columns of 32 bytes.
[[nodiscard]] std::string_view bytes_of(const digest& d) noexcept;
[[nodiscard]] std::optional<digest> from_bytes(std::string_view bytes) noexcept;

}  // namespace sluice::store
