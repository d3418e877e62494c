// SPDX-License-Identifier: Apache-2.0
// Looking into JSON that others have made: what is not as expected is as if it were not there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace sluice::discover {

// member() is null (the JSON value) when there is none.
[[nodiscard]] inline const nlohmann::json& member(const nlohmann::json& of, const char* key) {
  static const nlohmann::json none;
  if (!of.is_object()) return none;
  const auto at = of.find(key);
  return at == of.end() ? none : *at;
}

[[nodiscard]] inline std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : std::string{};
}

[[nodiscard]] inline std::optional<std::uint64_t> number_of(const nlohmann::json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  return std::nullopt;
}

// parse_json() is a discarded value when it is none.
[[nodiscard]] inline nlohmann::json parse_json(std::string_view text) {
  return nlohmann::json::parse(text, nullptr, false);
}

}  // namespace sluice::discover
