// SPDX-License-Identifier: Apache-2.0
// What is known of discovered backends, as the state file holds it: JSON. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "controlplane/discover/keeper.hpp"

namespace sluice::discover {

[[nodiscard]] std::string to_text(const known& k);
[[nodiscard]] tl::expected<known, std::string> from_text(std::string_view text);

}  // namespace sluice::discover
