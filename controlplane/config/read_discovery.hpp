// SPDX-License-Identifier: Apache-2.0
// The keys discover and discovered of a service, and the file that backends are read from.
#pragma once

#include <string_view>
#include <vector>

#include "controlplane/config/config.hpp"
#include "controlplane/model/model.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::config {

// read_discovery() reads into `out`, whose forwarding mode is known already. What the text has
// replaces the whole of what `out` had from a base.
void read_discovery(const yaml::map_value& m, model::service& out);

}  // namespace sluice::config
