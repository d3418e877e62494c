// SPDX-License-Identifier: Apache-2.0
// POST /v1/heartbeats: a backend says that it is alive.
#pragma once

#include "controlplane/api/message.hpp"
#include "controlplane/reconcile/controller.hpp"

namespace sluice::api {

[[nodiscard]] reply take_heartbeat(reconcile::controller& c, const request& r);

}  // namespace sluice::api
