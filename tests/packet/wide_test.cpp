// SPDX-License-Identifier: Apache-2.0
// Packets that are looked at eight at a time (path/classify_wide.cpp) against the same packets one
// after the other: eight good ones, and every way in which one of them can be a little different.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "dataplane/abi/flow_hash.h"
#include "tests/packet/wide_borders.hpp"
#include "tests/packet/wide_world.hpp"
#include "tests/reference/dice.hpp"

namespace sluice::test {
namespace {

using reference::dice;

#ifdef SLUICE_SANITIZED
constexpr unsigned share = 7;  // a sanitizer makes everything slow: every seventh
#else
constexpr unsigned share = 1;
#endif
constexpr unsigned lanes = 8;
constexpr unsigned syn = 0x02;
constexpr unsigned ack = 0x10;
constexpr std::uint64_t second = 1'000'000'000;

// flow: one of the connections that the bursts are made of.
struct flow {
  bool v6;
  bool tcp;
  std::size_t vip;  // its number
  unsigned client;
  unsigned port;
};

struct look {  // of a flow's packet
  unsigned flags{ack};
  std::size_t payload{0};
  unsigned tos{0};
  unsigned id{0x1234};
};

class wide : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    estate_ = std::make_unique<wide_estate>(false);
    backwards_ = std::make_unique<wide_estate>(true);
  }
  static void TearDownTestSuite() {
    estate_.reset();
    backwards_.reset();
  }
  void SetUp() override {
    if (connection::best_instruction_set() != connection::instruction_set::avx512)
      GTEST_SKIP() << "without AVX-512 there is one way only";
  }
  void start(std::uint64_t connections) {
    one_ = std::make_unique<side>(connection::instruction_set::scalar, connections);
    eight_ = std::make_unique<side>(connection::instruction_set::avx512, connections);
    set_view(estate_->view());
  }
  void TearDown() override {
    if (one_ == nullptr || HasFailure()) return;
    compare_counts();
    EXPECT_TRUE(one_->connections() == eight_->connections()) << "the tables differ";
  }

  void set_view(const abi::config_view& view) {
    one_->set_view(view);
    eight_->set_view(view);
  }
  // run() puts a burst through both; false: they differ, and the test has failed.
  bool run(const std::vector<input>& burst, const std::string& what) {
    const auto a = one_->run(burst, now_);
    const auto b = eight_->run(burst, now_);
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
      if (i < a.size() && i < b.size() && a[i] == b[i]) continue;
      ADD_FAILURE() << what << ", packet " << i << " of " << burst.size()
                    << "\none by one: " << (i < a.size() ? text_of(a[i]) : "nothing")
                    << "eight at once: " << (i < b.size() ? text_of(b[i]) : "nothing")
                    << "the frame:\n"
                    << (i < burst.size() ? hex(burst[i].frame) : "one that was held");
      return false;
    }
    if (++bursts_ % 64 == 0) compare_counts();
    return true;
  }
  void maintain() { ASSERT_EQ(one_->maintain(now_), eight_->maintain(now_)); }
  void compare_counts() const {
    EXPECT_TRUE(one_->counts() == eight_->counts()) << "what is counted differs";
  }

  // some_flow() is to one of the VIPs that share a place of the cache so often of 1000 times. Only
  // two have it: packets to the others are looked at one by one, and with them those beside them.
  flow some_flow(bool v6, bool tcp, unsigned sharing) {
    const std::size_t n = v6 ? estate_->six().size() : estate_->four().size();
    const std::size_t vip = d_.chance(sharing)
                                ? d_.below(wide_estate::sharing)
                                : d_.between(wide_estate::sharing, static_cast<unsigned>(n) - 1);
    return {v6, tcp, vip, d_.below(0x10000), d_.between(1024, 0xffff)};
  }
  static input packet_of(const flow& f, const look& l = {}) {
    const auto high = static_cast<std::uint8_t>(f.client >> 8);
    const auto low = static_cast<std::uint8_t>(f.client);
    const bytes payload(l.payload, 0x77);
    const bytes l4 = f.tcp ? tcp({.source = f.port, .flags = l.flags}, payload)
                           : udp({.source = f.port}, payload);
    const unsigned protocol = f.tcp ? 6 : 17;
    if (f.v6)
      return {ethernet(0x86dd, ip6({.source = {0x20, 1, 0xd, 0xb8, 0, 0xc, high, 0, low, 1},
                                    .destination = estate_->six()[f.vip],
                                    .next = protocol,
                                    .traffic_class = l.tos},
                                   l4))};
    return {ethernet(0x0800, ip4({.source = {100, 64, high, low},
                                  .destination = estate_->four()[f.vip],
                                  .protocol = protocol,
                                  .tos = l.tos,
                                  .id = l.id},
                                 l4))};
  }
  // some_look(): seldom so short that the frame is not long enough for eight at once.
  look some_look(bool tcp) {
    static constexpr std::array<std::size_t, 8> payloads{12, 13, 18, 27, 40, 41, 60, 1000};
    static constexpr std::array<std::size_t, 3> short_ones{0, 6, 7};
    return {d_.chance(900) ? ack : d_.one_of(some_flags),
            d_.chance(tcp ? 500 : 10) ? d_.one_of(short_ones) : d_.one_of(payloads),
            d_.chance(300) ? d_.below(256) : 0u, d_.below(0x10000)};
  }
  input some_packet(bool v6, bool tcp) { return packet_of(known(v6, tcp), some_look(tcp)); }
  // known() is a flow that both have a connection of.
  const flow& known(bool v6, bool tcp) { return d_.one_of(pool_[v6][tcp]); }
  void begin_flows(unsigned of_a_kind, unsigned sharing) {
    start(small_table);
    for (const bool v6 : {false, true})
      for (const bool tcp : {false, true}) {
        auto& flows = pool_[v6][tcp];
        for (unsigned i = 0; i < of_a_kind; ++i) flows.push_back(some_flow(v6, tcp, sharing));
        if (!run(bursts_of(flows, {.flags = syn}), "the first packets")) return;
        if (!run(bursts_of(flows, {.flags = ack}), "the second packets")) return;
      }
  }
  static std::vector<input> bursts_of(const std::vector<flow>& flows, const look& l) {
    std::vector<input> all;
    for (const flow& f : flows) all.push_back(packet_of(f, l));
    return all;
  }
  // touch() has all of the pool be seen this second, so that nothing about them changes.
  void touch() {
    for (const auto& of_family : pool_)
      for (const auto& flows : of_family)
        if (!run(bursts_of(flows, {}), "seen again")) return;
  }
  // try_all() puts each mutation on each of eight lanes, of a few flows each; every other time of
  // one that goes the shortest way.
  void try_all(bool v6, bool tcp, const std::vector<mutation>& all) {
    for (const mutation& m : all)
      for (unsigned turn = 0; turn < 2 * lanes; turn += share) {
        const unsigned lane = turn % lanes;
        std::vector<input> burst;
        const unsigned before = lanes * d_.below(2);
        for (unsigned left = before + lanes + d_.below(4); left != 0; --left)
          burst.push_back(some_packet(v6, d_.chance(800) == tcp));
        flow f = known(v6, tcp);
        while (turn < lanes && wide_estate::way_of(f.vip) != wide_estate::ipip) f = known(v6, tcp);
        look l = some_look(tcp);
        if (turn < lanes) l.flags = ack;
        burst[before + lane] = packet_of(f, l);
        m.apply(burst[before + lane]);
        if (!run(burst, m.what + " in lane " + std::to_string(lane))) return;
      }
  }

  static constexpr std::uint64_t small_table = 1 << 14;
  static constexpr std::uint64_t large_table = 1 << 16;  // beyond packet_path::small_table
  static constexpr std::array<unsigned, 12> some_flags{0,  1,    2,    4,    8,    0x11,
                                                       18, 0x14, 0x18, 0x30, 0xc2, 0xff};
  dice d_{20261129};
  std::uint64_t now_{1'000 * second};
  std::unique_ptr<side> one_, eight_;
  std::array<std::array<std::vector<flow>, 2>, 2> pool_;
  unsigned bursts_{0};
  static inline std::unique_ptr<wide_estate> estate_, backwards_;
};

TEST_F(wide, EightCommonPacketsOfAllKinds) {
  begin_flows(200, 200);
  // Settled and not, known and new, of one service and of many.
  for (unsigned round = 0; round < 400 && !HasFailure(); ++round) {
    std::vector<input> burst;
    const bool v6 = d_.chance(500);
    const unsigned tcp = d_.below(3);
    while (burst.size() < 40) {
      const bool is_tcp = tcp == 2 ? d_.chance(500) : tcp == 1;
      const flow f = d_.chance(950) ? known(v6, is_tcp) : some_flow(v6, is_tcp, 300);
      burst.push_back(packet_of(f, some_look(is_tcp)));
    }
    run(burst, "round " + std::to_string(round));
    if (d_.chance(20)) now_ += second;
  }
  using enum abi::counter_id;
  EXPECT_GT(eight_->count(connection_hits), 10'000u);
  EXPECT_GT(eight_->count(connections_opened), 1'000u);
  EXPECT_GT(eight_->count(forwarded), 10'000u);
}

// Both families at random, tags, and a few that are odd in some way: each family is dealt with by
// itself, up to the next frame that is neither.
TEST_F(wide, FamiliesAndOddOnesAlternate) {
  begin_flows(200, 200);
  static constexpr std::array<unsigned, 4> shares{50, 300, 500, 950};
  static constexpr std::array<unsigned, 4> odd_shares{0, 10, 60, 300};
  for (unsigned round = 0; round < 3'000 / share; ++round) {
    const unsigned six = d_.one_of(shares);
    const unsigned odd = d_.one_of(odd_shares);
    std::vector<input> burst;
    for (unsigned n = d_.between(1, 256); n != 0; --n) {
      const bool v6 = d_.chance(six);
      const bool tcp = d_.chance(800);
      const flow f = d_.chance(950) ? known(v6, tcp) : some_flow(v6, tcp, 300);
      input p = packet_of(f, some_look(tcp));
      if (d_.chance(odd)) {
        switch (d_.below(4)) {
          case 0: {
            const std::array<std::uint8_t, 4> tag{0x81, 0, 0, 7};
            p.frame.insert(p.frame.begin() + 12, tag.begin(), tag.end());
            break;
          }
          case 1: {
            const unsigned bit = d_.below(std::min<std::size_t>(p.frame.size(), 80) * 8);
            p.frame[bit / 8] = static_cast<std::uint8_t>(p.frame[bit / 8] ^ 1u << bit % 8);
            break;
          }
          case 2:
            p.headroom = static_cast<std::uint16_t>(d_.below(64));
            break;
          default:
            p.first_segment = d_.below(p.frame.size() + 1);
        }
      }
      burst.push_back(std::move(p));
    }
    if (!run(burst, "round " + std::to_string(round))) return;
    if (d_.chance(20)) now_ += second;
    if (d_.chance(20)) maintain();
  }
  EXPECT_GT(eight_->count(abi::counter_id::connection_hits), 50'000u / share);
}

// Where most packets begin connections their hashes are made beforehand; and in a large table that
// is filled, many of those that do not are in their secondary buckets. Whatever way they go, a
// packet goes where its connection's first one went.
TEST_F(wide, MostBeginAConnectionInALargeTable) {
  start(large_table);
  struct known_flow {
    flow of;
    std::uint32_t backend;
  };
  std::vector<known_flow> flows;
  std::uint64_t hits = 0;
  static constexpr std::array<unsigned, 5> shares{1000, 900, 600, 400, 50};
  for (unsigned round = 0; flows.size() < large_table / share; ++round) {
    std::vector<flow> in_burst;
    std::vector<std::uint32_t> wanted;
    std::vector<input> burst;
    const unsigned fresh = d_.one_of(shares);
    const unsigned v6 = d_.chance(500) ? 10u : 0u;
    for (unsigned n = d_.between(1, 256); n != 0; --n) {
      const bool anew = flows.empty() || d_.chance(fresh);
      const known_flow f =
          anew ? known_flow{some_flow(d_.chance(v6), true, 5), 0} : d_.one_of(flows);
      hits += !anew;
      in_burst.push_back(f.of);
      wanted.push_back(f.backend);
      burst.push_back(packet_of(f.of, {.flags = anew ? syn : ack}));
    }
    const auto sent = one_->run(burst, now_);
    ASSERT_EQ(eight_->run(burst, now_), sent) << "round " << round;
    for (std::size_t i = 0; i < burst.size(); ++i) {
      ASSERT_EQ(sent[i].outcome, verdict::forward) << "round " << round << ", packet " << i;
      if (wanted[i] == 0) {
        flows.push_back({in_burst[i], sent[i].backend});
      } else {
        ASSERT_EQ(sent[i].backend, wanted[i]) << "round " << round << ", packet " << i;
      }
    }
    // All backends' rows are to be looked at again: packets go the slow way in between.
    if (d_.chance(300)) set_view(estate_->view());
    if (d_.chance(20)) now_ += second;
  }
  using enum abi::counter_id;
  EXPECT_EQ(eight_->count(connection_hits), hits);
  EXPECT_EQ(eight_->count(connections_opened), flows.size());
  EXPECT_EQ(eight_->count(connections_evicted) + eight_->count(connections_expired), 0u);
}

// A flow label of 0 would say that there is none: the one flow of a million that has it gets 1.
TEST_F(wide, FlowLabelOfZero) {
  start(small_table);
  const flow f{true, true, 5, 0, 1024};
  ASSERT_EQ(wide_estate::way_of(f.vip), wide_estate::ipip);
  input p = packet_of(f);
  const auto word = [&p](std::size_t at) {
    std::uint64_t w = 0;
    std::memcpy(&w, p.frame.data() + at, 8);
    return w;
  };
  const std::uint64_t low = word(l3 + 16);
  const std::uint64_t to_high = word(l3 + 24);
  const std::uint64_t to_low = word(l3 + 32);
  const std::uint32_t ports[2]{static_cast<std::uint16_t>(word(l4_of(true))),
                               static_cast<std::uint16_t>(word(l4_of(true) + 2))};
  std::uint64_t high = word(l3 + 8);
  while ((sluice_flow_hash6(42, high, low, to_high, to_low, ports[0], ports[1], 6) & 0xfffff) != 0)
    high += std::uint64_t{1} << 32;  // the last bytes of the network
  std::memcpy(p.frame.data() + l3 + 8, &high, 8);
  const auto with_flags = [&p](unsigned flags) {
    input of_flow = p;
    set8(of_flow, l4_of(true) + 13, flags);
    return std::vector<input>(lanes, of_flow);
  };
  for (const unsigned flags : {syn, ack, ack}) run(with_flags(flags), "no label");
  const auto sent = eight_->run(with_flags(ack), now_);
  EXPECT_EQ(one_->run(with_flags(ack), now_), sent);
  EXPECT_EQ(sent[0].outcome, verdict::forward);
  const std::size_t outer = static_cast<std::size_t>(sent[0].at) + l3;
  ASSERT_GT(sent[0].buffer.size(), outer + 4);
  EXPECT_EQ(bytes(sent[0].buffer.begin() + static_cast<std::ptrdiff_t>(outer),
                  sent[0].buffer.begin() + static_cast<std::ptrdiff_t>(outer + 4)),
            (bytes{0x60, 0, 0, 1}));
}

TEST_F(wide, OneOfEightIsAtABorder) {
  begin_flows(200, 0);
  for (const bool v6 : {false, true})
    for (const bool tcp : {false, true})
      for (const auto& some :
           {of_ethernet(), of_sizes(), v6 ? of_ipv6() : of_ipv4(), of_l4(v6, tcp)}) {
        touch();
        try_all(v6, tcp, some);
        maintain();
        now_ += 10 * second;  // fragments wait no longer
        maintain();
        if (HasFailure()) return;
      }
}

TEST_F(wide, BitsOfOneOfEightAreFlipped) {
  begin_flows(200, 20);
  for (unsigned round = 0; round < 20'000 / share; ++round) {
    std::vector<input> burst;
    do {
      const bool v6 = d_.chance(500);
      const unsigned tcp = d_.below(1000);
      for (unsigned n = lanes + d_.below(12), i = 0; i < n; ++i)
        burst.push_back(some_packet(v6, d_.chance(tcp)));
      input& p = burst[burst.size() - 1 - d_.below(lanes)];
      for (unsigned bits = d_.below(4); bits != 0; --bits) {
        const unsigned bit = d_.below(std::min<std::size_t>(p.frame.size(), 80) * 8);
        p.frame[bit / 8] = static_cast<std::uint8_t>(p.frame[bit / 8] ^ 1u << bit % 8);
      }
      if (!v6 && d_.chance(500)) sum_up(p);
      if (d_.chance(50)) p.headroom = static_cast<std::uint16_t>(d_.below(64));
      if (d_.chance(50)) p.first_segment = d_.below(p.frame.size() + 1);
      p.in_port = static_cast<std::uint8_t>(d_.below(2));
    } while (d_.chance(500) && burst.size() < 200);
    if (!run(burst, "round " + std::to_string(round))) return;
    if (d_.chance(5)) now_ += second;
    if (d_.chance(20)) maintain();
    // Other numbers for all VIPs, other labels; and for a while nothing at all.
    if (d_.chance(5))
      set_view(d_.chance(200)   ? abi::config_view{}
               : d_.chance(500) ? estate_->view()
                                : backwards_->view());
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace sluice::test
