// SPDX-License-Identifier: Apache-2.0
// How much of a packet is left for clients once it is on its way to a backend, and what does
// not fit. For `sluice check`, without a daemon.
#pragma once

#include <string>
#include <vector>

#include "controlplane/model/model.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::cli {

// backend_room: bytes of IP packet, of the way to a backend and of a client's packet in it.
struct backend_room {
  std::string service;
  std::string forward;
  ip_address backend;
  unsigned mtu{};
  unsigned room{};
};

struct room_report {
  unsigned mtu{};      // assumed of every way
  std::string source;  // where the MTU is from, in words
  std::vector<backend_room> rooms;
  std::vector<std::string> warnings;  // "services[web]: ..."
};

// look_at_room() takes the smallest MTU of the node's interfaces, or 1500 where there is none
// on this host.
[[nodiscard]] room_report look_at_room(const model::desired_state& state, const node_config* node);

}  // namespace sluice::cli
