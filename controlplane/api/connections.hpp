// SPDX-License-Identifier: Apache-2.0
// The calls about tracked connections, and `explain`.
#pragma once

#include <optional>
#include <string>

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

[[nodiscard]] reply count_connections(reconcile::controller& c, const request& r);
[[nodiscard]] reply list_connections(reconcile::controller& c, const request& r);
[[nodiscard]] reply flush_connections(reconcile::controller& c, const request& r);
[[nodiscard]] reply explain(reconcile::controller& c, const request& r);

// state_name() is the word for a connection's state.
[[nodiscard]] std::string state_name(abi::connection_state s);

}  // namespace sluice::api
