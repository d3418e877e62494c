// SPDX-License-Identifier: Apache-2.0
#include "controlplane/daemon/supervision.hpp"

#include <systemd/sd-daemon.h>

#include <chrono>
#include <cstdint>
#include <utility>

namespace sluice::daemon {
namespace {

constexpr auto look_every = std::chrono::seconds{2};

}  // namespace

supervision::supervision(event_loop& loop, std::function<std::string()> status)
    : loop_{loop}, status_{std::move(status)} {
  std::uint64_t us = 0;
  if (::sd_watchdog_enabled(0, &us) > 0) ping_every_ = std::chrono::microseconds{us / 2};
}

supervision::~supervision() {
  loop_.cancel(ping_timer_);
  loop_.cancel(look_timer_);
}

void supervision::ready() {
  tell_ready();
  if (ping_every_ != event_loop::duration{0}) ping();
  look();
}

// A loop that hangs lets the watchdog bite.
void supervision::ping() {
  ::sd_notify(0, "WATCHDOG=1");
  ping_timer_ = loop_.call_after(ping_every_, [this] { ping(); });
}

void supervision::look() {
  look_timer_ = loop_.call_after(look_every, [this] { look(); });
  std::string now = status_();
  if (now == shown_) return;
  shown_ = std::move(now);
  ::sd_notify(0, ("STATUS=" + shown_).c_str());
}

void tell_reloading() {
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now().time_since_epoch());
  ::sd_notify(0, ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now.count())).c_str());
}

void tell_ready() {
  ::sd_notify(0, "READY=1");
}

void tell_stopping() {
  ::sd_notify(0, "STOPPING=1");
}

}  // namespace sluice::daemon
