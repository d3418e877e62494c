// SPDX-License-Identifier: Apache-2.0
// What a packet from the client does to its connection's state. Direct return: the
// server's packets are never seen, so this is RFC 9293 section 3.3.2 with one side only.
// A table, so that it can be read and tested as one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/abi/service_table.hpp"

namespace sluice::connection {

// TCP control bits (RFC 9293 section 3.1).
enum tcp_flags : std::uint8_t {
  tcp_fin = 0x01,
  tcp_syn = 0x02,
  tcp_rst = 0x04,
  tcp_psh = 0x08,
  tcp_ack = 0x10,
  tcp_urg = 0x20,
};

// segment: what the flags of a client's packet say.
enum class segment : std::uint8_t {
  nonsense,  // no client sends it: SYN with FIN, RST or ACK, RST with FIN, neither SYN, RST nor ACK
  syn,       // opens (RFC 9293 section 3.5); also with data or PSH (RFC 7413)
  ack,       // anything in between
  fin,       // has nothing more to send (section 3.6)
  rst,       // gives up (section 3.5.2)
  count_,
};

constexpr segment classify(std::uint8_t flags) noexcept {
  const bool syn = (flags & tcp_syn) != 0;
  const bool ack = (flags & tcp_ack) != 0;
  const bool rst = (flags & tcp_rst) != 0;
  const bool fin = (flags & tcp_fin) != 0;
  if (syn) return fin || rst || ack ? segment::nonsense : segment::syn;
  if (rst) return fin ? segment::nonsense : segment::rst;
  if (!ack) return segment::nonsense;  // every segment after the SYN has ACK (section 3.1)
  return fin ? segment::fin : segment::ack;
}

enum class step : std::uint8_t {
  ignore,  // forward by the entry if there is one, else by the hash; change nothing
  create,  // no entry: enter one in state `next`
  keep,    // the entry gets state `next` and the time
  renew,   // a new connection in the old one's place: choose a backend anew, state `next`
};

struct transition {
  connection::step step;
  abi::connection_state next;
  bool operator==(const transition&) const noexcept = default;
};

namespace detail {

using abi::connection_state;
inline constexpr std::size_t segment_count = static_cast<std::size_t>(segment::count_);
using tcp_table = std::array<std::array<transition, segment_count>, abi::connection_state_count>;

constexpr tcp_table make_tcp_table() {
  using enum connection_state;
  constexpr auto ignore = [](connection_state s) { return transition{step::ignore, s}; };
  constexpr auto keep = [](connection_state s) { return transition{step::keep, s}; };
  constexpr transition to_syn{step::create, syn};
  constexpr transition to_learned{step::create, learned};
  constexpr transition renew{step::renew, syn};
  // A row per state (columns: nonsense, syn, ack, fin, rst).
  tcp_table t{};
  const auto row = [&t](connection_state s) -> auto& {
    return t[static_cast<std::size_t>(s)];
  };
  // No entry: only a SYN or an ordinary packet makes one. A FIN or RST is the end of
  // something that we do not know: not worth an entry.
  row(free) = {ignore(free), to_syn, to_learned, ignore(free), ignore(free)};
  // After a RST. A SYN opens anew. Anything else means that the server did not believe
  // the RST (out of window, RFC 5961 section 3): a forged one then costs nothing.
  row(closed) = {ignore(closed), renew, keep(learned), keep(closing), ignore(closed)};
  // SYN again: retransmitted (section 3.8.1). ACK: the handshake's third, or data.
  row(syn) = {ignore(syn), keep(syn), keep(established), keep(closing), keep(closed)};
  // Began before we saw it. The second packet proves as much as we can get.
  row(learned) = {ignore(learned), ignore(learned), keep(established), keep(closing), keep(closed)};
  // A SYN on a live connection is old, forged, or of a client that lost its state: the
  // server answers with a challenge ACK and, if so, gets a RST (RFC 5961 section 4).
  row(established) = {ignore(established), ignore(established), keep(established), keep(closing),
                      keep(closed)};
  // FIN seen; the client still acknowledges what the server sends (half-closed, section
  // 3.6). A SYN is the next connection from the same port.
  row(closing) = {ignore(closing), renew, keep(closing), keep(closing), keep(closed)};
  // UDP states do not occur here (the VIP's number is part of the key and says TCP).
  row(udp_new) = {ignore(udp_new), ignore(udp_new), ignore(udp_new), ignore(udp_new),
                  ignore(udp_new)};
  row(udp) = {ignore(udp), ignore(udp), ignore(udp), ignore(udp), ignore(udp)};
  return t;
}
inline constexpr tcp_table tcp_transitions = make_tcp_table();

}  // namespace detail

// tcp_next() says what a packet with these flags does to a connection in this state
// (free: none in the table). Any value of either is allowed.
constexpr transition tcp_next(abi::connection_state state, std::uint8_t flags) noexcept {
  return detail::tcp_transitions[static_cast<std::size_t>(state) & 7u]
                                [static_cast<std::size_t>(classify(flags))];
}

// udp_next(): the first datagram makes udp_new, every other udp.
constexpr transition udp_next(abi::connection_state state) noexcept {
  return state == abi::connection_state::free
             ? transition{step::create, abi::connection_state::udp_new}
             : transition{step::keep, abi::connection_state::udp};
}

}  // namespace sluice::connection
