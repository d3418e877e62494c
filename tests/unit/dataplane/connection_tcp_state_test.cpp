// SPDX-License-Identifier: Apache-2.0
// The state machine as a table: every state, every combination of the flags that matter.
#include "dataplane/connection/tcp_state.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice::connection {
namespace {

using enum abi::connection_state;
using abi::connection_state;
constexpr std::uint8_t F = tcp_fin, S = tcp_syn, R = tcp_rst, P = tcp_psh, A = tcp_ack, U = tcp_urg;

static_assert(tcp_next(free, S) == transition{step::create, syn});
static_assert(tcp_next(syn, A) == transition{step::keep, established});

TEST(tcp_state, Classify) {
  const struct {
    unsigned flags;
    segment is;
  } rows[] = {
      {S, segment::syn},
      {S | P, segment::syn},
      {S | U, segment::syn},
      {0xc0u | S, segment::syn},  // ECN-setup SYN (RFC 3168 section 6.1.1)
      {A, segment::ack},
      {A | P, segment::ack},
      {A | P | U, segment::ack},
      {F | A, segment::fin},
      {F | A | P, segment::fin},
      {R, segment::rst},
      {R | A, segment::rst},
      {R | P, segment::rst},
      {0, segment::nonsense},
      {P, segment::nonsense},
      {U, segment::nonsense},
      {F, segment::nonsense},
      {F | P | U, segment::nonsense},  // "Christmas tree"
      {S | F, segment::nonsense},
      {S | R, segment::nonsense},
      {S | A, segment::nonsense},
      {R | F, segment::nonsense},
      {R | F | A, segment::nonsense},
      {S | F | R | A, segment::nonsense},
  };
  for (const auto& r : rows)
    EXPECT_EQ(classify(static_cast<std::uint8_t>(r.flags)), r.is) << "flags " << r.flags;
}

TEST(tcp_state, Transitions) {
  using enum step;
  const struct {
    connection_state from;
    unsigned flags;
    transition to;
  } rows[] = {
      // No entry.
      {free, S, {create, syn}},
      {free, A, {create, learned}},
      {free, A | P, {create, learned}},
      {free, F | A, {ignore, free}},
      {free, R, {ignore, free}},
      {free, S | F, {ignore, free}},
      {free, 0, {ignore, free}},
      {free, S | R, {ignore, free}},
      {free, S | A, {ignore, free}},
      // Handshake.
      {syn, S, {keep, syn}},
      {syn, A, {keep, established}},
      {syn, F | A, {keep, closing}},
      {syn, R, {keep, closed}},
      {syn, S | F, {ignore, syn}},
      // Learned.
      {learned, A, {keep, established}},
      {learned, S, {ignore, learned}},
      {learned, F | A, {keep, closing}},
      {learned, R | A, {keep, closed}},
      {learned, 0, {ignore, learned}},
      // Established.
      {established, A, {keep, established}},
      {established, S, {ignore, established}},
      {established, S | P, {ignore, established}},
      {established, F | A, {keep, closing}},
      {established, R, {keep, closed}},
      {established, S | R, {ignore, established}},
      {established, S | F, {ignore, established}},
      // Closing.
      {closing, A, {keep, closing}},
      {closing, F | A, {keep, closing}},
      {closing, S, {renew, syn}},
      {closing, R, {keep, closed}},
      {closing, S | F, {ignore, closing}},
      // Closed.
      {closed, S, {renew, syn}},
      {closed, A, {keep, learned}},
      {closed, F | A, {keep, closing}},
      {closed, R, {ignore, closed}},
      {closed, S | R, {ignore, closed}},
      // UDP states are none of TCP's business.
      {udp, S, {ignore, udp}},
      {udp_new, A, {ignore, udp_new}},
  };
  for (const auto& r : rows)
    EXPECT_EQ(tcp_next(r.from, static_cast<std::uint8_t>(r.flags)), r.to)
        << "state " << int(r.from) << " flags " << r.flags;
}

// Over all inputs, also impossible ones.
TEST(tcp_state, Properties) {
  for (unsigned s = 0; s < 256; ++s) {
    for (unsigned f = 0; f < 256; ++f) {
      const auto from = static_cast<connection_state>(s & 7);
      const transition t = tcp_next(static_cast<connection_state>(s), static_cast<std::uint8_t>(f));
      ASSERT_LT(static_cast<unsigned>(t.next), abi::connection_state_count);
      const bool nonsense = classify(static_cast<std::uint8_t>(f)) == segment::nonsense;
      if (nonsense) {
        ASSERT_EQ(t, (transition{step::ignore, from}));
      }
      if (t.step == step::ignore) {
        ASSERT_EQ(t.next, from);
      }
      if (t.step == step::create) {
        ASSERT_EQ(from, free);
      }
      if (t.step == step::renew) {
        ASSERT_EQ(t.next, syn);
      }
      // No single packet makes a connection that a flood could not evict.
      if (from == free) {
        ASSERT_NE(t.next, established);
      }
      // Nothing leads into a UDP state.
      if (from != udp && from != udp_new) {
        ASSERT_NE(t.next, udp);
        ASSERT_NE(t.next, udp_new);
      }
    }
  }
}

TEST(tcp_state, WholeConnections) {
  const struct {
    const char* name;
    std::vector<unsigned> flags;
    connection_state end;
  } rows[] = {
      {"handshake, data, close", {S, A, A | P, A | P, F | A, A}, closing},
      {"lost SYN", {S, S, S, A}, established},
      {"moved here", {A, A | P}, established},
      {"aborted", {S, A, R}, closed},
      {"port reused after close", {S, A, F | A, A, S}, syn},
      {"a forged RST does not end it", {S, A, R, A | P, A}, established},
      {"a forged SYN does not end it", {S, A, S, A}, established},
      {"half-closed download", {S, A, A | P, F | A, A, A, A}, closing},
      {"scan", {F | P | U, 0, S | F}, free},
  };
  for (const auto& r : rows) {
    connection_state s = free;
    for (const unsigned f : r.flags) s = tcp_next(s, static_cast<std::uint8_t>(f)).next;
    EXPECT_EQ(s, r.end) << r.name;
  }
}

TEST(udp_state, FirstAndSecond) {
  EXPECT_EQ(udp_next(free), (transition{step::create, udp_new}));
  EXPECT_EQ(udp_next(udp_new), (transition{step::keep, udp}));
  EXPECT_EQ(udp_next(udp), (transition{step::keep, udp}));
}

}  // namespace
}  // namespace sluice::connection
