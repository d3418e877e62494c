// SPDX-License-Identifier: Apache-2.0
// A server that answers "N\n" with "NAME N\n", over TCP and UDP on the same port.
#pragma once

#include <string>
#include <vector>

#include "tests/end_to_end/flowgen/options.hpp"

namespace sluice::flowgen {

// serve() runs until SIGINT or SIGTERM; prints "ready" when it listens. Answers come from
// the address that was asked, also on a wildcard listener. Throws std::runtime_error.
void serve(const std::vector<endpoint>& listen, const std::string& name);

}  // namespace sluice::flowgen
