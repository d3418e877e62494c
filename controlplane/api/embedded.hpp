// SPDX-License-Identifier: Apache-2.0
// Files that are part of the binary: the web page, the OpenAPI document. Any thread.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "controlplane/api/message.hpp"

namespace sluice::api {

struct embedded_file {
  std::string_view name;
  std::string_view type;
  std::string_view content;
};

// embedded_files() is made by embed.py.
[[nodiscard]] std::span<const embedded_file> embedded_files() noexcept;
[[nodiscard]] const embedded_file* find_embedded(std::string_view name) noexcept;

// page() answers /ui and what is below it.
[[nodiscard]] reply page(const request& r);
[[nodiscard]] reply openapi();

}  // namespace sluice::api
