// SPDX-License-Identifier: Apache-2.0
// The calls about what happens: events, as they come or the last ones.
#pragma once

#include "controlplane/api/message.hpp"
#include "controlplane/events/event_log.hpp"

namespace sluice::api {

// event_json() is EVENT of docs/api.md.
[[nodiscard]] json event_json(const events::event& e);

// follow_events() goes on until the client hangs up. `log` outlives the server.
[[nodiscard]] reply follow_events(const events::event_log& log, const request& r);
[[nodiscard]] reply recent_events(const events::event_log& log, const request& r);

}  // namespace sluice::api
