// SPDX-License-Identifier: Apache-2.0
// The keys of a service that controlplane/model/options.hpp is about, and those of a backend
// that only some services have a use for.
#pragma once

#include "controlplane/model/model.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::config {

// read_options() reads into `out`, whose protocol, forwarding mode and scheduler are known
// already. A key in the text that would have no effect with them is an error; what `out`
// had from a base and has no use for any more goes.
void read_options(const yaml::map_value& m, model::service& out);

// read_backend_options() reads port, dscp and quic-id. Whether they have an effect is seen
// where the service is (check.cpp).
void read_backend_options(const yaml::map_value& m, model::backend& out);

}  // namespace sluice::config
