// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/flow_hash.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "dataplane/abi/net_types.hpp"

namespace {

std::uint32_t raw(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  return sluice::ip_address::v4({a, b, c, d}).v4_raw().raw();
}
std::uint16_t raw_port(std::uint16_t p) {
  return sluice::be16{p}.raw();
}

// Golden vectors, from a second implementation: two nodes of different releases must agree. Never
// change these; a new hash needs a new name.
TEST(flow_hash, golden_vectors) {
  const std::uint32_t s = raw(192, 0, 2, 7);
  const std::uint32_t d = raw(198, 51, 100, 10);
  EXPECT_EQ(sluice_flow_hash4(0, s, d, raw_port(40000), raw_port(443), 6), 0x2190244ba3d47e53ull);
  EXPECT_EQ(sluice_flow_hash4(42, s, d, raw_port(40000), raw_port(443), 6), 0x2bab8d3200bf122eull);
  EXPECT_EQ(sluice_flow_hash6(42, 1, 2, 3, 4, raw_port(40000), raw_port(443), 17),
            0x7686438429d88d33ull);
  EXPECT_EQ(sluice_slot(0xffffffffffffffffull, 65537), 65536u);
  EXPECT_EQ(sluice_slot(0, 65537), 0u);
  EXPECT_EQ(sluice_slot(0x80000000'00000000ull, 10), 5u);
}

// Every input bit matters, and about half of the output bits change with it.
TEST(flow_hash, avalanche) {
  const std::array<std::uint64_t, 6> base{42, 0x0a000001, 0xc6336464, 0x9c40, 0x1bb, 6};
  const std::array<unsigned, 6> width{64, 32, 32, 16, 16, 8};
  const auto hash = [](const std::array<std::uint64_t, 6>& v) {
    return sluice_flow_hash4(v[0], static_cast<std::uint32_t>(v[1]),
                             static_cast<std::uint32_t>(v[2]), static_cast<std::uint32_t>(v[3]),
                             static_cast<std::uint32_t>(v[4]), static_cast<std::uint32_t>(v[5]));
  };
  for (std::size_t field = 0; field < base.size(); ++field) {
    for (unsigned bit = 0; bit < width[field]; ++bit) {
      auto changed = base;
      changed[field] ^= 1ull << bit;
      const int different = __builtin_popcountll(hash(base) ^ hash(changed));
      EXPECT_GE(different, 12) << "field " << field << " bit " << bit;
      EXPECT_LE(different, 52) << "field " << field << " bit " << bit;
    }
  }
}

// Consecutive ports and addresses, as real clients have, spread evenly over slots:
// chi-squared over 1,009 slots stays within 6 standard deviations.
TEST(flow_hash, spreads_consecutive_flows) {
  constexpr std::uint32_t slots = 1009;
  std::vector<unsigned> hits(slots);
  constexpr unsigned n = slots * 200;
  for (unsigned i = 0; i < n; ++i) {
    const std::uint32_t s = sluice::be32{0x0a000000u + i / 64}.raw();
    const auto port = raw_port(static_cast<std::uint16_t>(32768 + i % 64));
    ++hits[sluice_slot(sluice_flow_hash4(42, s, raw(198, 51, 100, 10), port, raw_port(443), 6),
                       slots)];
  }
  double chi = 0;
  for (const unsigned h : hits) chi += (h - 200.0) * (h - 200.0) / 200.0;
  EXPECT_LT(std::abs(chi - (slots - 1)), 6 * std::sqrt(2.0 * (slots - 1)));
}

}  // namespace
