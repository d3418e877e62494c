// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/notify.hpp"

#include <systemd/sd-daemon.h>

#include <chrono>

namespace sluice {

void notify_ready(const std::string& status) {
  ::sd_notify(0, ("READY=1\nSTATUS=" + status).c_str());
}
void notify_reloading() {
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now().time_since_epoch());
  ::sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now.count())).c_str());
}
void notify_status(const std::string& status) {
  ::sd_notify(0, ("STATUS=" + status).c_str());
}
void notify_stopping() {
  ::sd_notify(0, "STOPPING=1");
}
void notify_watchdog() {
  ::sd_notify(0, "WATCHDOG=1");
}

std::uint64_t watchdog_interval_ns() {
  std::uint64_t us = 0;
  return ::sd_watchdog_enabled(0, &us) > 0 ? us * 1000 : 0;
}

}  // namespace sluice
