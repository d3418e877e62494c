// SPDX-License-Identifier: Apache-2.0
// What a worker remembers of the VIP table: never another VIP, nor one of another generation.
#include "dataplane/path/vip_cache.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/packet/frame_builder.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {
namespace {

constexpr std::uint8_t tcp = 6;
constexpr std::uint8_t udp_number = 17;

be32 address4(unsigned n) {
  return be32{0x0a000000 + n};
}
ip_address address6(unsigned n) {
  hexadec a{0x20, 1, 0xd, 0xb8};
  a[13] = static_cast<std::uint8_t>(n >> 16);
  a[14] = static_cast<std::uint8_t>(n >> 8);
  a[15] = static_cast<std::uint8_t>(n);
  return ip_address::v6(a);
}
// on_one_place() are the first numbers of addresses that fall where the first one does.
std::vector<unsigned> on_one_place4(std::size_t count) {
  const auto place = [](unsigned n) { return vip_cache::place_of4(address4(n).raw(), tcp); };
  std::vector<unsigned> all;
  for (unsigned n = 0; all.size() < count; ++n)
    if (place(n) == place(0)) all.push_back(n);
  return all;
}
std::vector<unsigned> on_one_place6(std::size_t count) {
  const auto place = [](unsigned n) {
    return vip_cache::place_of6(address6(n).high(), address6(n).low(), tcp);
  };
  std::vector<unsigned> all;
  for (unsigned n = 0; all.size() < count; ++n)
    if (place(n) == place(0)) all.push_back(n);
  return all;
}

// cached: a table, the cache, and what the table itself says.
class cached : public ::testing::Test {
 protected:
  void add4(unsigned n, ip_proto protocol = ip_proto::tcp) {
    t_.vip(ip_address::v4(address4(n)), protocol);
  }
  void add6(unsigned n, ip_proto protocol = ip_proto::tcp) { t_.vip(address6(n), protocol); }
  static std::uint64_t bits_of(const abi::vip_row* row) {
    return row == nullptr ? 0 : std::uint64_t{abi::connection_word::vip_bits(row->id)};
  }
  void expect4(unsigned n, std::uint8_t protocol = tcp) {
    const abi::vip_row* const row =
        view_.empty() ? nullptr : view_.find_vip(ip_address::v4(address4(n)), protocol);
    const std::uint64_t found = cache_.find4(view_, address4(n), protocol);
    ASSERT_EQ(found, bits_of(row)) << n;
    if (row != nullptr) {
      ASSERT_EQ(&cache_.row(found), row) << n;
    }
  }
  void expect6(unsigned n, std::uint8_t protocol = tcp) {
    const ip_address a = address6(n);
    const abi::vip_row* const row = view_.empty() ? nullptr : view_.find_vip(a, protocol);
    const std::uint64_t found = cache_.find6(view_, a.high(), a.low(), protocol);
    ASSERT_EQ(found, bits_of(row)) << n;
    if (row != nullptr) {
      ASSERT_EQ(&cache_.row(found), row) << n;
    }
  }
  void take_up() {
    view_ = t_.view();
    cache_.forget();
  }

  table_builder t_;
  abi::config_view view_;
  vip_cache cache_;
};

TEST_F(cached, TwoAndThreeOnOnePlace) {
  const auto four = on_one_place4(4);
  const auto six = on_one_place6(4);
  for (const std::size_t count : {2u, 3u}) {
    for (std::size_t i = count == 2 ? 0 : 2; i < count; ++i) add4(four[i]), add6(six[i]);
    take_up();
    // In all orders, again and again; the last one is no VIP.
    for (unsigned round = 0; round < 200; ++round)
      for (std::size_t i = 0; i < 4; ++i) {
        expect4(four[round >> i & 1 ? i : 3 - i]);
        expect6(six[round >> i & 1 ? i : 3 - i]);
      }
  }
}

TEST_F(cached, TcpAndUdpOfOneAddress) {
  add4(1);
  add4(1, ip_proto::udp);
  add4(2, ip_proto::udp);
  add6(1);
  add6(1, ip_proto::udp);
  add6(2, ip_proto::udp);
  take_up();
  for (unsigned round = 0; round < 3; ++round)
    for (const unsigned n : {1u, 2u, 3u})
      for (const std::uint8_t protocol : {tcp, udp_number, std::uint8_t{0}}) {
        expect4(n, protocol);
        expect6(n, protocol);
      }
  EXPECT_NE(cache_.find4(view_, address4(1), tcp), cache_.find4(view_, address4(1), udp_number));
}

// What is said of a generation is void in every later one, also in those whose number looks the
// same in the few bits that a place has for it.
TEST_F(cached, NothingIsLeftOfManyGenerations) {
  const auto four = on_one_place4(3);
  const auto six = on_one_place6(3);
  for (std::size_t i = 0; i < 3; ++i) add4(four[i]), add6(six[i]);
  const abi::config_view full = t_.view();
  const abi::config_view none{};
  for (unsigned distance = 1; distance <= 300; ++distance) {
    view_ = full;
    cache_.forget();
    for (std::size_t i = 0; i < 3; ++i) expect4(four[i]), expect6(six[i]);
    view_ = none;
    // The wrap falls on every number of steps in turn.
    for (unsigned i = 0; i < distance; ++i) cache_.forget();
    for (std::size_t i = 0; i < 3; ++i) expect4(four[i]), expect6(six[i]);
  }
}

TEST_F(cached, AVipMayHaveAnotherNumberInTheNextGeneration) {
  add4(1), add4(2), add6(1), add6(2);
  for (unsigned generation = 0; generation < 600; ++generation) {
    take_up();
    for (const unsigned n : {1u, 2u}) expect4(n), expect6(n);
    for (const unsigned n : {1u, 2u}) {
      auto& a = t_.vip(ip_address::v4(address4(n)), ip_proto::tcp);
      auto& b = t_.vip(address6(n), ip_proto::tcp);
      std::swap(a.id, b.id);
      a.id = static_cast<abi::vip_id>((static_cast<unsigned>(a.id) + 4) % 0xfff0);
    }
  }
}

}  // namespace
}  // namespace sluice::test
