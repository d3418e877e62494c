// SPDX-License-Identifier: Apache-2.0
// announcer: puts the VIPs that are to be announced on an interface of the kernel, from where a
// routing daemon exports them, and takes them off again (docs/announce.md). It touches only what it
// has put there itself; a file in the runtime directory remembers that, over a kill, too.
//
// The addresses stay when the control plane ends: the data plane goes on forwarding.
// Threading: the loop's thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "controlplane/decision/announcement.hpp"
#include "controlplane/events/event_log.hpp"
#include "controlplane/neighbour/interface_addresses.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

class announcer {
 public:
  using shown = std::map<ip_address, decision::announcement>;

  // node outlives this. What an earlier run has put on another interface is taken away.
  announcer(const node_config& node, events::event_log& events);

  [[nodiscard]] bool off() const noexcept { return !addresses_; }
  // set_quorums() says for each VIP whether one of its services has its quorum.
  void set_quorums(std::map<ip_address, bool> quorums) { quorums_ = std::move(quorums); }
  // look() decides, and sees to it that the interface is as decided. Called ten times a second;
  // forwarding: the data plane is alive and has tables.
  void look(bool forwarding, bool drained, decision::time_point now);

  [[nodiscard]] const shown& all() const noexcept { return shown_; }
  // problems() are for the status.
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  void recall();
  [[nodiscard]] bool remember(const std::set<ip_address>& addresses);
  void apply();
  void tell(const ip_address& a, std::optional<decision::announcement> now);

  const node_config& node_;
  events::event_log& events_;
  std::unique_ptr<neighbour::interface_addresses> addresses_;  // null: off
  std::map<ip_address, bool> quorums_;
  decision::node_memory memory_;
  shown shown_;
  std::set<ip_address> ours_;  // put there by us, or about to be
  bool settled_{false};        // the interface is as shown_ says
  decision::time_point applied_at_{};
  std::map<ip_address, std::string> failures_;
  std::string problem_;
};

}  // namespace sluice::reconcile
