// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up only
// nat_table::adopt(): the sessions of a process that has ended, however it did. State is
// written last and cleared first, so that what is not `free` is a session; nothing of it is
// believed all the same.
#include <algorithm>

#include "dataplane/path/nat_table.hpp"

namespace sluice {

using abi::connection_state;

// is_whole() tells whether a session is one that open() of this worker could have begun.
bool nat_table::is_whole(const nat_session& s) const noexcept {
  if (static_cast<std::size_t>(s.state) >= abi::connection_state_count) return false;
  if (s.in_port >= abi::max_ports) return false;  // (all flags are known ones)
  if (s.protocol != static_cast<std::uint8_t>(ip_proto::tcp) &&
      s.protocol != static_cast<std::uint8_t>(ip_proto::udp))
    return false;
  const ip_address nobody4 = ip_address::v4(be32{});
  for (const ip_address& a : {s.client, s.vip, s.server, s.local})
    if (a.is_v4() != s.vip.is_v4() || a == ip_address{} || a == nobody4) return false;
  if ((s.flags & nat_full) == 0) return s.local == s.client && s.local_port == s.client_port;
  // Others would not hand replies to a port that is not ours to us.
  return s.local_port.host() >= first_port &&
         owner_of_port(s.local_port, workers_) == port_base_ % workers_;
}

nat_table::adoption nat_table::adopt(std::uint32_t room, unsigned next_port,
                                     const std::function<bool(const nat_session&)>& keeps) {
  adoption result;
  set_room(room);
  std::uint32_t end = 0;
  for (std::uint32_t i = 0; i < this->room(); ++i) {
    nat_session& s = sessions_[i];
    if (s.state == connection_state::free) continue;
    s.confirmed = 0;  // in a generation of the other process's
    const auto drop = [&s](std::uint32_t& counted) {
      s = {};
      ++counted;
    };
    const wire::flow_ends there = name(forward, s);
    const wire::flow_ends back = name(reply, s);
    if (!is_whole(s) || find(forward, there, s.protocol) != nullptr ||
        find(reply, back, s.protocol) != nullptr) {
      drop(result.torn);
    } else if (!keeps(s)) {
      drop(result.dropped);
    } else if (!link(forward, there, s.protocol, i)) {
      drop(result.dropped);
    } else if (!link(reply, back, s.protocol, i)) {
      unlink(forward, there, s.protocol, i);
      drop(result.dropped);
    } else {
      ++size_;
      end = i + 1;
    }
  }
  high_water_ = end;
  for (std::uint32_t i = end; i-- > 0;) {
    if (sessions_[i].state != connection_state::free) continue;
    sessions_[i].next_free = free_;
    free_ = i;
  }
  // What is beyond next_port was given out after it was written down: a kill does not say how
  // much. Ports that are in use are found out anyway; these may be waited for (TIME_WAIT).
  next_port_ = (next_port % port_count_ + port_count_ / 16) % port_count_;
  return result;
}

}  // namespace sluice
