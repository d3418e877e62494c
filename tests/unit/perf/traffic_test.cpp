// SPDX-License-Identifier: Apache-2.0
// What perf/throughput/traffic measures and judges with.
#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "perf/throughput/latencies.hpp"
#include "perf/throughput/rate_search.hpp"
#include "perf/throughput/stamped_frames.hpp"

namespace sluice::perf {
namespace {

constexpr std::uint32_t trial = 0x534c0007;
constexpr std::uint32_t services = 10;
constexpr std::uint32_t backends = 20;

// The last word counts the backends.
ip_address first_backend(bool v6) {
  return v6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 2}) : ip_address::v4({172, 16, 0, 0});
}

ip_address encap_source(bool v6) {
  return v6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
            : ip_address::v4({192, 0, 2, 10});
}

std::uint16_t checksum(const std::uint8_t* ip) {
  std::uint32_t sum = 0;
  for (unsigned i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(ip[i] << 8 | ip[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~((sum & 0xffff) + (sum >> 16)));
}

void put16(std::uint8_t* to, unsigned value) {
  to[0] = static_cast<std::uint8_t>(value >> 8);
  to[1] = static_cast<std::uint8_t>(value);
}

void put32(std::uint8_t* to, std::uint32_t value) {
  put16(to, value >> 16);
  put16(to + 2, value & 0xffff);
}

expectation through(way w, bool v6) {
  return {.through = w,
          .next_hop = {2, 0, 0, 0, 0, static_cast<std::uint8_t>(w == way::io ? 0 : 1)},
          .encap_source = encap_source(v6),
          .first_backend = first_backend(v6),
          .backends = backends};
}

stamped_frames frames_for(way w, bool v6 = false) {
  return {v6, services, {6, 536, 6, 1440}, through(w, v6)};
}

std::vector<std::uint8_t> sent(const stamped_frames& frames, std::uint32_t flow,
                               std::uint32_t number) {
  std::vector<std::uint8_t> frame(2048);
  frame.resize(frames.write(frame.data(), flow, number, trial, 0x112233445566, flag_ack));
  return frame;
}

// tunnelled() is what an ipip balancer makes of a frame.
std::vector<std::uint8_t> tunnelled(std::vector<std::uint8_t> frame, std::uint32_t backend) {
  std::uint8_t* const inner = frame.data() + 14;
  frame[5] = 1;
  if (frame[12] == 0x86) {
    --inner[7];
    std::array<std::uint8_t, 40> outer{};
    outer[0] = 0x60, outer[6] = 41, outer[7] = 64;
    put16(outer.data() + 4, static_cast<unsigned>(frame.size()) - 14);
    std::memcpy(outer.data() + 8, encap_source(true).bytes.data(), 16);
    std::memcpy(outer.data() + 24, first_backend(true).bytes.data(), 16);
    put32(outer.data() + 36, backend);
    frame.insert(frame.begin() + 14, outer.begin(), outer.end());
    return frame;
  }
  --inner[8];
  put16(inner + 10, 0);
  put16(inner + 10, checksum(inner));
  std::array<std::uint8_t, 20> outer{};
  outer[0] = 0x45, outer[8] = 64, outer[9] = 4;
  put16(outer.data() + 2, static_cast<unsigned>(frame.size()) - 14 + 20);
  std::memcpy(outer.data() + 12, encap_source(false).bytes.data() + 12, 4);
  put32(outer.data() + 16, 0xac100000 + backend);
  put16(outer.data() + 10, checksum(outer.data()));
  frame.insert(frame.begin() + 14, outer.begin(), outer.end());
  return frame;
}

fault read(const stamped_frames& frames, const std::vector<std::uint8_t>& frame, stamp& s) {
  return frames.read(frame.data(), static_cast<std::uint32_t>(frame.size()), trial, s);
}

std::uint32_t backend_for(std::uint32_t flow) {
  return flow_frames{{.services = services}}.service_of(flow) * backends + flow % backends;
}

class StampedFrames : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Family, StampedFrames, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "ipv6" : "ipv4"; });

TEST_P(StampedFrames, AreKnownAgain) {
  const stamped_frames io = frames_for(way::io, GetParam());
  const stamped_frames ipip = frames_for(way::ipip, GetParam());
  for (const std::uint32_t flow : {0u, 1u, 999u, 123456u, 0x1fedcbau, (1u << 26) - 1})
    for (std::uint32_t number = 0; number < 4; ++number) {
      stamp s{};
      ASSERT_EQ(read(io, sent(io, flow, number), s), fault::none);
      EXPECT_EQ(s.flow, flow);
      EXPECT_EQ(s.number, number);
      EXPECT_EQ(s.clock, 0x112233445566u);
      s = {};
      const std::uint32_t backend = backend_for(flow);
      ASSERT_EQ(read(ipip, tunnelled(sent(ipip, flow, number), backend), s), fault::none);
      EXPECT_EQ(s.flow, flow);
      EXPECT_EQ(s.number, number);
      EXPECT_EQ(s.backend, backend + 1);
      EXPECT_EQ(s.clock, 0x112233445566u);
    }
}

TEST_P(StampedFrames, HaveTheSizesOfTheirPattern) {
  const stamped_frames io = frames_for(way::io, GetParam());
  std::vector<std::size_t> sizes;
  for (std::uint32_t number = 0; number < 4; ++number) sizes.push_back(sent(io, 0, number).size());
  const std::size_t more = GetParam() ? 20 : 0;
  EXPECT_EQ(sizes, (std::vector<std::size_t>{60 + more, 590 + more, 60 + more, 1494 + more}));
}

// Every bit of the headers that a balancer writes or passes on counts, but for the source MAC,
// which is the port's own, and the outer TOS and identification behind a checksum that fits; of
// IPv6, the outer traffic class, flow label and hop limit.
TEST_P(StampedFrames, AnyFlippedBitIsSeen) {
  const stamped_frames ipip = frames_for(way::ipip, GetParam());
  const auto right = tunnelled(sent(ipip, 77, 1), backend_for(77));
  for (unsigned at = 0; at < 14u + (GetParam() ? 80 : 40); ++at) {
    if (at >= 6 && at < 12) continue;
    if (GetParam() && ((at >= 14 && at < 18) || at == 21)) continue;
    for (unsigned bit = 0; bit < 8; ++bit) {
      auto frame = right;
      frame[at] = static_cast<std::uint8_t>(frame[at] ^ 1u << bit);
      stamp s{};
      // Where a number is, without a checksum: a packet of another flow, whose turn it is not, or
      // from another backend of the service, which is seen by who remembers the flow's.
      EXPECT_TRUE(read(ipip, frame, s) != fault::none || s.flow != 77 ||
                  s.backend != backend_for(77) + 1)
          << "byte " << at << " bit " << bit;
    }
  }
}

TEST_P(StampedFrames, WhatIsWrongHasAName) {
  const stamped_frames ipip = frames_for(way::ipip, GetParam());
  const stamped_frames direct = frames_for(way::dsr_l2, GetParam());
  const auto frame = sent(ipip, 5, 0);
  stamp s{};
  EXPECT_EQ(read(ipip, tunnelled(frame, (backend_for(5) + backends) % (services * backends)), s),
            fault::backend);
  auto other = tunnelled(frame, backend_for(5));
  other[5] = 9;
  EXPECT_EQ(read(ipip, other, s), fault::next_hop);
  EXPECT_EQ(read(direct, frame, s), fault::next_hop);  // as it was sent
  auto late = tunnelled(frame, backend_for(5));
  const std::uint32_t earlier = trial - 1;
  std::memcpy(late.data() + (GetParam() ? 14 + 80 : 14 + 40) + 8, &earlier, 4);
  EXPECT_EQ(read(ipip, late, s), fault::late);
  const auto whole = tunnelled(frame, backend_for(5));
  for (std::size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(read(ipip, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}, s),
              fault::none);
  auto longer = whole;
  longer.push_back(0);
  EXPECT_NE(read(ipip, longer, s), fault::none);
}

TEST(Latencies, QuantilesAreExactToOnePercent) {
  latencies all;
  EXPECT_EQ(all.quantile(0.5), 0u);
  for (std::uint64_t i = 1; i <= 1'000'000; ++i) all.add(i);
  EXPECT_EQ(all.total(), 1'000'000u);
  EXPECT_EQ(all.most(), 1'000'000u);
  for (const double q : {0.001, 0.1, 0.5, 0.99, 0.999}) {
    const auto found = static_cast<double>(all.quantile(q));
    EXPECT_GE(found, q * 1e6);
    EXPECT_LE(found, q * 1.01e6);
  }
  EXPECT_EQ(all.quantile(1), 1'000'000u);
  all.clear();
  all.add(~std::uint64_t{0});
  EXPECT_EQ(all.quantile(0.5), ~std::uint64_t{0});
}

TEST(RateSearch, FindsTheHighestThatPasses) {
  for (const double limit : {0.4, 1.0, 7.7, 29.0}) {
    double asked_last = 0;
    unsigned trials = 0;
    const double found = search_rate({30, 0.01, 0.02}, [&](double rate) {
      asked_last = rate;
      ++trials;
      return rate <= limit;
    });
    EXPECT_LE(found, limit);
    EXPECT_GE(found, limit * 0.979);
    EXPECT_GT(asked_last, 0);
    EXPECT_LE(trials, 14u);
  }
  EXPECT_EQ(search_rate({30, 0.01, 0.02}, [](double) { return true; }), 30);
  unsigned trials = 0;
  EXPECT_EQ(search_rate({30, 0.01, 0.02},
                        [&](double) {
                          ++trials;
                          return false;
                        }),
            0);
  EXPECT_LE(trials, 14u);
}

}  // namespace
}  // namespace sluice::perf
