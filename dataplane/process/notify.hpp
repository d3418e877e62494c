// SPDX-License-Identifier: Apache-2.0
// Telling systemd (sd_notify(3)). Does nothing where nobody listens. Any thread.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// notify_ready() also ends what notify_reloading() began.
void notify_ready(const std::string& status);
void notify_reloading();
void notify_status(const std::string& status);
void notify_stopping();
void notify_watchdog();
// watchdog_interval_ns() is how often notify_watchdog() must be called at least; 0: not asked for.
[[nodiscard]] std::uint64_t watchdog_interval_ns();

}  // namespace sluice
