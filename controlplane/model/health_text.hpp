// SPDX-License-Identifier: Apache-2.0
// A health check as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "controlplane/model/health.hpp"

namespace sluice::model {

// health_json() is what services.yaml has under `health`.
[[nodiscard]] nlohmann::ordered_json health_json(const health_check& h);

// bytes_text() writes bytes so that they can be read, too: as they are where that is text, else
// as "hex:0a0b". text_bytes() is its inverse; nothing: not hexadecimal.
[[nodiscard]] std::string bytes_text(std::string_view bytes);
[[nodiscard]] std::optional<std::string> text_bytes(std::string_view text);

// record_name() is the name of a type of DNS record, record_of() its number; empty and nothing:
// not one that can be asked for.
[[nodiscard]] std::string_view record_name(std::uint16_t record) noexcept;
[[nodiscard]] std::optional<std::uint16_t> record_of(std::string_view name) noexcept;

}  // namespace sluice::model
