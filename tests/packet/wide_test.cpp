// SPDX-License-Identifier: Apache-2.0
// Packets that are looked at eight at a time (path/classify_wide.cpp) against the same packets one
// after the other: eight good ones, and every way in which one of them can be a little different.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "dataplane/abi/flow_hash.h"
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
constexpr std::size_t l3 = 14;
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

constexpr std::size_t l4_of(bool v6) {
  return l3 + (v6 ? 40u : 20u);
}

// A mutation changes a frame, or what the packet says about it.
struct mutation {
  std::string what;
  std::function<void(input&)> apply;
};

void set8(input& p, std::size_t at, unsigned v) {
  if (at < p.frame.size()) p.frame[at] = static_cast<std::uint8_t>(v);
}
void set16(input& p, std::size_t at, unsigned v) {
  set8(p, at, v >> 8);
  set8(p, at + 1, v & 0xff);
}
unsigned get16(const input& p, std::size_t at) {
  return at + 1 < p.frame.size() ? unsigned{p.frame[at]} << 8 | p.frame[at + 1] : 0;
}
template <std::size_t n>
void set(input& p, std::size_t at, const std::array<std::uint8_t, n>& v) {
  for (std::size_t i = 0; i < n; ++i) set8(p, at + i, v[i]);
}
// sum_up() makes an IPv4 header's checksum right.
void sum_up(input& p) {
  if (p.frame.size() < l3 + 20) return;
  set16(p, l3 + 10, 0);
  set16(p, l3 + 10, checksum_of(p.frame, l3, 20));
}

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

// with_and_without() is the change alone, and with the IPv4 header's checksum made right.
void with_and_without(std::vector<mutation>& to, const std::string& what,
                      const std::function<void(input&)>& change) {
  to.push_back({what, change});
  to.push_back({what + ", summed up", [change](input& p) {
                  change(p);
                  sum_up(p);
                }});
}

// around() are the values next to what a length field ought to be, and its borders.
std::vector<std::function<unsigned(unsigned, const input&)>> lengths() {
  std::vector<std::function<unsigned(unsigned, const input&)>> all;
  for (const int by : {-1, 1, -8, -20, 0x100})
    all.push_back([by](unsigned is, const input&) { return is + static_cast<unsigned>(by); });
  for (const unsigned v :
       {0u, 7u, 8u, 9u, 19u, 20u, 21u, 27u, 28u, 39u, 40u, 41u, 0x7fffu, 0x8000u, 0xff00u, 0xffffu})
    all.push_back([v](unsigned, const input&) { return v; });
  for (const std::size_t header : {l3, l3 + 20, l3 + 40})  // as long as the frame has room
    for (const int by : {-1, 0, 1})
      all.push_back([=](unsigned, const input& p) {
        return static_cast<unsigned>(p.frame.size() - header) + static_cast<unsigned>(by);
      });
  return all;
}

std::vector<mutation> of_ethernet() {
  std::vector<mutation> all;
  for (const unsigned v : {0x00u, 0x01u, 0x03u, 0x33u, 0xfeu, 0xffu})
    all.push_back(
        {"first byte of the MAC address " + std::to_string(v), [v](input& p) { set8(p, 0, v); }});
  for (const unsigned v :
       {0u, 0x0008u, 0x0800u, 0x0801u, 0x0806u, 0x8100u, 0x86ddu, 0xdd86u, 0x88a8u, 0xffffu})
    all.push_back({"type " + std::to_string(v), [v](input& p) { set16(p, 12, v); }});
  for (const unsigned type : {0x8100u, 0x88a8u})
    all.push_back({"tagged", [type](input& p) {
                     const std::array<std::uint8_t, 4> tag{static_cast<std::uint8_t>(type >> 8),
                                                           static_cast<std::uint8_t>(type), 0, 7};
                     p.frame.insert(p.frame.begin() + 12, tag.begin(), tag.end());
                   }});
  return all;
}

std::vector<mutation> of_sizes() {
  std::vector<mutation> all;
  for (const std::size_t n :
       {0u,  1u,  12u, 13u, 14u, 15u, 16u, 33u, 34u, 35u, 38u, 41u, 42u, 43u, 46u, 47u, 48u, 49u,
        53u, 54u, 55u, 58u, 59u, 60u, 61u, 62u, 63u, 64u, 66u, 67u, 68u, 73u, 74u, 75u, 80u}) {
    all.push_back({"cut to " + std::to_string(n), [n](input& p) {
                     if (n < p.frame.size()) p.frame.resize(n);
                   }});
    all.push_back(
        {"first segment of " + std::to_string(n), [n](input& p) { p.first_segment = n; }});
  }
  for (const std::size_t n : {1u, 2u, 20u}) {
    all.push_back(
        {"shorter by " + std::to_string(n), [n](input& p) { p.frame.resize(p.frame.size() - n); }});
    all.push_back({"first segment shorter by " + std::to_string(n),
                   [n](input& p) { p.first_segment = p.frame.size() - n; }});
    all.push_back({"padded by " + std::to_string(n),
                   [n](input& p) { p.frame.resize(p.frame.size() + n, 0xee); }});
    all.push_back({"padded elsewhere by " + std::to_string(n), [n](input& p) {
                     p.first_segment = p.frame.size();
                     p.frame.resize(p.frame.size() + n, 0xee);
                   }});
  }
  for (unsigned n = 0; n <= 60; ++n)
    all.push_back({"headroom " + std::to_string(n),
                   [n](input& p) { p.headroom = static_cast<std::uint16_t>(n); }});
  for (const unsigned n : {0xff00u, 0xfffeu})
    all.push_back({"headroom " + std::to_string(n),
                   [n](input& p) { p.headroom = static_cast<std::uint16_t>(n); }});
  for (const std::uint8_t port : {std::uint8_t{0}, std::uint8_t{2}, std::uint8_t{255}})
    all.push_back({"in-port", [port](input& p) { p.in_port = port; }});
  return all;
}

std::vector<mutation> of_l4(bool v6, bool tcp) {
  std::vector<mutation> all;
  const std::size_t l4 = l4_of(v6);
  for (const unsigned v : {0u, 1u, 53u, 80u, 443u, 0xbb01u, 0xffffu})
    for (const std::size_t at : {l4, l4 + 2})
      all.push_back({"port " + std::to_string(v), [=](input& p) { set16(p, at, v); }});
  if (tcp) {
    for (unsigned v = 0; v < 16; ++v)
      for (const unsigned low : {0u, 15u})
        all.push_back({"data offset " + std::to_string(v),
                       [=](input& p) { set8(p, l4 + 12, v << 4 | low); }});
    for (unsigned v = 0; v < 256; v += v < 64 ? 1 : 9)
      all.push_back({"flags " + std::to_string(v), [=](input& p) { set8(p, l4 + 13, v); }});
  } else {
    for (const auto& length : lengths())
      all.push_back(
          {"UDP length", [=](input& p) { set16(p, l4 + 4, length(get16(p, l4 + 4), p)); }});
    for (const unsigned v : {0u, 0xffffu})
      all.push_back({"UDP checksum", [=](input& p) { set16(p, l4 + 6, v); }});
  }
  return all;
}

std::vector<mutation> of_ipv4() {
  std::vector<mutation> all;
  for (const unsigned v : {0x44u, 0x46u, 0x4fu, 0x55u, 0x65u, 0x60u, 0x05u, 0x00u, 0xffu})
    with_and_without(all, "version, IHL " + std::to_string(v), [v](input& p) { set8(p, l3, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 0xfcu, 0xffu})
    with_and_without(all, "TOS " + std::to_string(v), [v](input& p) { set8(p, l3 + 1, v); });
  for (const auto& length : lengths())
    with_and_without(all, "total length",
                     [=](input& p) { set16(p, l3 + 2, length(get16(p, l3 + 2), p)); });
  for (const unsigned v :
       {0u, 1u, 0x2000u, 0x2001u, 0x1fffu, 0x4000u, 0x4001u, 0x6000u, 0x8000u, 0xc000u, 0xffffu})
    with_and_without(all, "fragment " + std::to_string(v), [v](input& p) { set16(p, l3 + 6, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 127u, 128u, 254u, 255u})
    with_and_without(all, "TTL " + std::to_string(v), [v](input& p) { set8(p, l3 + 8, v); });
  for (const unsigned v : {0u, 1u, 4u, 5u, 6u, 7u, 16u, 17u, 18u, 23u, 41u, 47u, 58u, 132u, 255u})
    with_and_without(all, "protocol " + std::to_string(v), [v](input& p) { set8(p, l3 + 9, v); });
  for (const int by : {-256, -1, 1, 256, 0x8000})
    all.push_back({"checksum off", [by](input& p) {
                     set16(p, l3 + 10, get16(p, l3 + 10) + static_cast<unsigned>(by));
                   }});
  for (const unsigned v : {0u, 0xffffu})
    all.push_back({"checksum " + std::to_string(v), [v](input& p) { set16(p, l3 + 10, v); }});
  // Right ones of all kinds: the id makes them so. The last changes by what the TTL loses.
  for (const unsigned v : {0u, 1u, 0xfeu, 0xffu, 0x100u, 0x7fffu, 0xfdffu, 0xfe00u, 0xfeffu,
                           0xff00u, 0xfffeu, 0xffffu})
    all.push_back({"right checksum " + std::to_string(v), [v](input& p) {
                     set16(p, l3 + 4, 0);
                     set16(p, l3 + 10, v);
                     set16(p, l3 + 4, checksum_of(p.frame, l3, 20));
                   }});
  for (const std::size_t at : {l3 + 12, l3 + 16}) {
    for (const unsigned v :
         {0u, 1u, 2u, 126u, 127u, 128u, 222u, 223u, 224u, 225u, 239u, 240u, 254u, 255u})
      with_and_without(all, "first octet " + std::to_string(v), [=](input& p) { set8(p, at, v); });
    for (const quad& a : {quad{0, 0, 0, 0}, quad{255, 255, 255, 255}, quad{127, 0, 0, 1},
                          quad{198, 51, 100, 10}, quad{10, 0, 0, 1}})
      with_and_without(all, "address", [=](input& p) { set(p, at, a); });
  }
  with_and_without(all, "to itself", [](input& p) {
    for (std::size_t i = 0; i < 4; ++i) set8(p, l3 + 12 + i, p.frame[l3 + 16 + i]);
  });
  return all;
}

std::vector<mutation> of_ipv6() {
  std::vector<mutation> all;
  const auto add = [&all](const std::string& what, const std::function<void(input&)>& change) {
    all.push_back({what, change});
  };
  for (const unsigned v : {0x00u, 0x40u, 0x45u, 0x50u, 0x60u, 0x61u, 0x6fu, 0x70u, 0xe0u, 0xffu})
    add("first byte " + std::to_string(v), [v](input& p) { set8(p, l3, v); });
  for (const unsigned v : {0u, 0x0fu, 0x10u, 0xf0u, 0xffu})
    add("second byte " + std::to_string(v), [v](input& p) { set8(p, l3 + 1, v); });
  for (const auto& length : lengths())
    add("payload length", [=](input& p) { set16(p, l3 + 4, length(get16(p, l3 + 4), p)); });
  for (const unsigned v :
       {0u, 1u, 5u, 6u, 7u, 16u, 17u, 18u, 43u, 44u, 50u, 51u, 58u, 59u, 60u, 135u, 255u})
    add("next header " + std::to_string(v), [v](input& p) { set8(p, l3 + 6, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 127u, 128u, 254u, 255u})
    add("hop limit " + std::to_string(v), [v](input& p) { set8(p, l3 + 7, v); });
  const auto address = [](std::initializer_list<std::uint8_t> first, std::uint8_t middle,
                          std::uint8_t last) {
    hexadec a{};
    std::copy(first.begin(), first.end(), a.begin());
    a[7] = middle;
    a[15] = last;
    return a;
  };
  hexadec mapped{};
  mapped[10] = mapped[11] = 0xff;
  mapped[12] = 10;
  for (const std::size_t at : {l3 + 8, l3 + 24}) {
    for (const hexadec& a :
         {address({}, 0, 0), address({}, 0, 1), address({}, 1, 0), address({}, 0x80, 1), mapped,
          address({0xff, 2}, 0, 1), address({0xff}, 0, 0), address({0xfe, 0x80}, 0, 1),
          address({0xfe}, 0xff, 0xff), address({0, 0xff}, 0, 1), address({1}, 0, 1),
          address({0x20, 1, 0xd, 0xb8, 0, 0xf}, 0, 9)})
      add("address", [=](input& p) { set(p, at, a); });
    for (const unsigned v : {0u, 0x7fu, 0xfeu, 0xffu})
      add("first octet " + std::to_string(v), [=](input& p) { set8(p, at, v); });
    add("upper half 0", [=](input& p) { set(p, at, std::array<std::uint8_t, 8>{}); });
    add("lower half 0", [=](input& p) { set(p, at + 8, std::array<std::uint8_t, 8>{}); });
    for (std::size_t i = 0; i < 16; ++i)
      add("an address nearly the other", [=](input& p) {
        for (std::size_t j = 0; j < 16; ++j) set8(p, l3 + 8 + j, p.frame[l3 + 24 + j]);
        set8(p, at + i, p.frame[at + i] ^ 1u);
      });
  }
  add("to itself", [](input& p) {
    for (std::size_t i = 0; i < 16; ++i) set8(p, l3 + 8 + i, p.frame[l3 + 24 + i]);
  });
  return all;
}

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
