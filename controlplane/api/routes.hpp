// SPDX-License-Identifier: Apache-2.0
// The calls that there are. What is not listed here is refused before it reaches anything;
// docs/openapi.yaml has the same list (tests/unit/control/routes_test.cpp). Any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/api/message.hpp"

namespace sluice::api {

struct route {
  std::string_view method;
  std::string_view path;  // "{x}" stands for any one segment
};

[[nodiscard]] std::span<const route> routes() noexcept;

// no_route() is the answer to what is no call, 404, or not with this method, 405; nothing
// where there is one.
[[nodiscard]] std::optional<reply> no_route(const request& r);

}  // namespace sluice::api
