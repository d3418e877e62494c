// SPDX-License-Identifier: Apache-2.0
// supervision: keeps systemd told (sd_notify(3)) for as long as the event loop turns: its
// watchdog, and a line of status. Does nothing where nobody listens. The loop's thread.
#pragma once

#include <functional>
#include <string>

#include "controlplane/loop/event_loop.hpp"

namespace sluice::daemon {

class supervision {
 public:
  // status: one line; asked for every few seconds, and sent when it has changed.
  supervision(event_loop& loop, std::function<std::string()> status);
  ~supervision();
  supervision(const supervision&) = delete;
  supervision& operator=(const supervision&) = delete;

  void ready();

 private:
  void ping();
  void look();

  event_loop& loop_;
  std::function<std::string()> status_;
  std::string shown_;
  event_loop::duration ping_every_{0};  // 0: no watchdog
  event_loop::timer_id ping_timer_{0};
  event_loop::timer_id look_timer_{0};
};

// Any thread. tell_ready() also ends what tell_reloading() began.
void tell_reloading();
void tell_ready();
void tell_stopping();

}  // namespace sluice::daemon
