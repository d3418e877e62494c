// SPDX-License-Identifier: Apache-2.0
// controlplane.kubernetes of node.yaml.
#pragma once

#include <optional>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice {

// read_kubernetes() reports what is wrong, and is nothing then.
[[nodiscard]] std::optional<kubernetes_config> read_kubernetes(const yaml::value& v);

}  // namespace sluice
