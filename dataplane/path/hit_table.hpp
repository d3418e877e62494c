// SPDX-License-Identifier: Apache-2.0
// What a packet does to the entry of its connection, as one table for TCP and UDP.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/tcp_state.hpp"
#include "dataplane/packet/parse.hpp"

namespace sluice {

constexpr bool is_tcp(const wire::parsed& m) noexcept {
  return m.protocol == static_cast<std::uint8_t>(ip_proto::tcp);
}

// The transitions of tcp_next() and udp_next() for an entry that is there, by state and
// the five flags that matter: one load per packet. An entry's state tells TCP from UDP,
// because the VIP's number in its key does.
inline constexpr unsigned flag_combinations = 32;
using hit_table = std::array<std::array<connection::transition, flag_combinations>, 8>;
constexpr hit_table make_hit_table() {
  using abi::connection_state;
  hit_table t{};
  for (unsigned s = 0; s < t.size(); ++s) {
    const auto state = static_cast<connection_state>(s);
    const bool udp = state == connection_state::udp_new || state == connection_state::udp;
    for (unsigned f = 0; f < flag_combinations; ++f)
      t[s][f] = udp ? connection::udp_next(state)
                    : connection::tcp_next(state, static_cast<std::uint8_t>(f));
  }
  return t;
}
inline constexpr hit_table hit_transitions = make_hit_table();

// opened_by: the state of a TCP connection that a packet with these flags begins; free: none.
inline constexpr auto opened_by = [] {
  std::array<abi::connection_state, flag_combinations> t{};
  for (unsigned f = 0; f < flag_combinations; ++f) {
    const auto first =
        connection::tcp_next(abi::connection_state::free, static_cast<std::uint8_t>(f));
    t[f] = first.step == connection::step::create ? first.next : abi::connection_state::free;
  }
  return t;
}();

}  // namespace sluice
