// SPDX-License-Identifier: Apache-2.0
// What all objects of Kubernetes have in common.
#pragma once

#include <string>
#include <string_view>

#include "controlplane/discover/json_text.hpp"
#include "controlplane/discover/kubernetes_reply.hpp"

namespace sluice::discover {

[[nodiscard]] std::string version_of(const nlohmann::json& object);
// line_of() is what a line of a watch says, but for the object.
[[nodiscard]] watch_line line_of(const nlohmann::json& event, std::string_view line);

}  // namespace sluice::discover
