// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/vip_entries.hpp"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "dataplane/abi/byteorder.hpp"

namespace sluice::bpf_loader {
namespace {

const ip_address vip4 = ip_address::v4({198, 51, 100, 10});

// ports() reads the entries the way the BPF program does.
std::set<unsigned> ports(const vip_entries& entries, ip_proto protocol) {
  std::set<unsigned> result;
  for (const auto& [key, value] : entries) {
    if (key.protocol != static_cast<std::uint8_t>(protocol)) continue;
    if (key.port != 0) result.insert(be16::from_raw(key.port).host());
    for (std::uint32_t i = 0; i < value.ranges; ++i)
      for (unsigned p = value.range[i].first; p <= value.range[i].last; ++p) result.insert(p);
  }
  return result;
}

TEST(vip_entries, nothing_for_nothing) {
  EXPECT_TRUE(make_vip_entries({}).value().empty());
}

TEST(vip_entries, a_port_and_the_address_marker) {
  const std::vector<vip> vips{{vip4, ip_proto::tcp, 443, 443}};
  const auto entries = make_vip_entries(vips).value();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(ports(entries, ip_proto::tcp), (std::set<unsigned>{443}));
  EXPECT_EQ(entries.begin()->first.port, 0);
  EXPECT_EQ(entries.begin()->first.protocol, 0);
}

TEST(vip_entries, ranges_are_merged) {
  const std::vector<vip> vips{{vip4, ip_proto::udp, 10, 20},
                              {vip4, ip_proto::udp, 21, 30},
                              {vip4, ip_proto::udp, 15, 25},
                              {vip4, ip_proto::udp, 40, 41}};
  const auto entries = make_vip_entries(vips).value();
  ASSERT_EQ(entries.size(), 2u);
  const auto& value = entries.rbegin()->second;
  ASSERT_EQ(value.ranges, 2u);
  EXPECT_EQ(value.range[0].first, 10);
  EXPECT_EQ(value.range[0].last, 30);
  EXPECT_EQ(value.range[1].first, 40);
}

TEST(vip_entries, any_port) {
  const std::vector<vip> vips{{vip4, ip_proto::udp, 0, 65535}};
  EXPECT_EQ(ports(make_vip_entries(vips).value(), ip_proto::udp).size(), 65536u);
}

TEST(vip_entries, more_ranges_than_an_entry_lists_stay_exact) {
  std::vector<vip> vips;
  std::set<unsigned> wanted;
  for (std::uint16_t i = 1; i <= 12; ++i) {
    const auto first = static_cast<std::uint16_t>(1000 * i);
    const auto last = static_cast<std::uint16_t>(first + i);
    vips.push_back({vip4, ip_proto::tcp, first, last});
    for (unsigned p = first; p <= last; ++p) wanted.insert(p);
  }
  const auto entries = make_vip_entries(vips).value();
  EXPECT_EQ(ports(entries, ip_proto::tcp), wanted);
  EXPECT_EQ(entries.size(), 2u + 2 + 3 + 4 + 5);  // marker, ranges, the four smallest as ports
}

TEST(vip_entries, refusals) {
  EXPECT_FALSE(make_vip_entries(std::vector<vip>{{vip4, ip_proto::tcp, 20, 10}}));
  std::vector<vip> many;
  for (unsigned i = 0; i <= SLUICE_MAX_VIP_ENTRIES / 2; ++i)
    many.push_back(
        {ip_address::v4({10, static_cast<std::uint8_t>(i >> 16), static_cast<std::uint8_t>(i >> 8),
                         static_cast<std::uint8_t>(i)}),
         ip_proto::tcp, 80, 80});
  EXPECT_FALSE(make_vip_entries(many));
  many.pop_back();
  EXPECT_TRUE(make_vip_entries(many));
}

}  // namespace
}  // namespace sluice::bpf_loader
