// SPDX-License-Identifier: Apache-2.0
// poller: asks backends' agents, each at its interval: connects by TCP, sends what it is to be
// sent, reads one line (words.hpp). One connection for each distinct agent, however many
// services ask it. An agent that cannot be had is no news: health checks say who is up.
//
// Threading: the loop's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "controlplane/loop/event_loop.hpp"
#include "controlplane/model/reports.hpp"
#include "dataplane/abi/net_types.hpp"

namespace sluice::agent {

struct target {
  ip_address address;
  model::agent_check check;

  bool operator==(const target&) const = default;
};

struct target_hash {
  std::size_t operator()(const target& t) const noexcept;
};

class poller {
 public:
  // on_line: what the agent said, without its end. on_failure: why it said nothing. Both may
  // call set_targets().
  using line_callback = std::function<void(const target&, const std::string& line)>;
  using failure_callback = std::function<void(const target&, const std::string& why)>;

  poller(event_loop& loop, line_callback on_line, failure_callback on_failure);
  ~poller();
  poller(const poller&) = delete;
  poller& operator=(const poller&) = delete;

  // set_targets() replaces the set; one that is in both goes on as it is. A new one is asked
  // within 200 ms.
  void set_targets(const std::vector<target>& wanted);

 private:
  struct entry;
  using entry_ptr = std::shared_ptr<entry>;

  void start(const entry_ptr& e);
  void on_event(const entry_ptr& e);
  void send(const entry_ptr& e);
  void receive(const entry_ptr& e);
  void finish(const entry_ptr& e, const std::string* line, const std::string& why);
  void close(entry& e) noexcept;

  event_loop& loop_;
  line_callback on_line_;
  failure_callback on_failure_;
  std::unordered_map<target, entry_ptr, target_hash> entries_;
};

}  // namespace sluice::agent
