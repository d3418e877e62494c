// SPDX-License-Identifier: Apache-2.0
// The keys of a service that controlplane/model/reports.hpp is about.
#pragma once

#include "controlplane/model/model.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::config {

// read_reports() reads into `out`, whose scheduler is known already.
void read_reports(const yaml::map_value& m, model::service& out);

}  // namespace sluice::config
