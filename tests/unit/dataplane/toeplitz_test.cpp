// SPDX-License-Identifier: Apache-2.0
// The software Toeplitz hash beside the published verification suite and beside DPDK's.
#include "dataplane/packet/toeplitz.hpp"

#include <gtest/gtest.h>
#include <rte_thash.h>

#include <random>
#include <vector>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/path/flow_owner.hpp"

namespace sluice {
namespace {

constexpr wire::rss_key published_key{0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                      0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                      0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                      0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

std::vector<std::uint8_t> input_of(const char* source, std::uint16_t source_port,
                                   const char* destination, std::uint16_t destination_port) {
  std::vector<std::uint8_t> out;
  for (const char* text : {source, destination}) {
    const ip_address a = *parse_ip(text);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&a);
    const bool v4 = a.is_v4();
    out.insert(out.end(), bytes + (v4 ? 12 : 0), bytes + 16);
  }
  for (const std::uint16_t port : {source_port, destination_port}) {
    out.push_back(static_cast<std::uint8_t>(port >> 8));
    out.push_back(static_cast<std::uint8_t>(port));
  }
  return out;
}

// "Verifying the RSS hash calculation", with TCP ports.
TEST(toeplitz, gives_the_published_results) {
  const wire::toeplitz t{published_key};
  EXPECT_EQ(t.hash(input_of("66.9.149.187", 2794, "161.142.100.80", 1766)), 0x51ccc178u);
  EXPECT_EQ(t.hash(input_of("199.92.111.2", 14230, "65.69.140.83", 4739)), 0xc626b0eau);
  EXPECT_EQ(t.hash(input_of("24.19.198.95", 12898, "12.22.207.184", 38024)), 0x5c2b394au);
  EXPECT_EQ(t.hash(input_of("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766)),
            0x40207d3du);
  EXPECT_EQ(t.hash(input_of("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739)),
            0xdde51bbfu);
}

TEST(toeplitz, agrees_with_dpdk) {
  std::mt19937_64 random{7};
  for (int round = 0; round < 2000; ++round) {
    const wire::rss_key key = flow_owner::key_of(random());
    const wire::toeplitz ours{key};
    for (const std::size_t words : {2u, 3u, 8u, 9u}) {
      std::vector<std::uint8_t> input(4 * words);
      for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
      std::vector<std::uint32_t> host(words);
      for (std::size_t i = 0; i < words; ++i)
        host[i] = static_cast<std::uint32_t>(input[4 * i]) << 24 |
                  static_cast<std::uint32_t>(input[4 * i + 1]) << 16 |
                  static_cast<std::uint32_t>(input[4 * i + 2]) << 8 | input[4 * i + 3];
      ASSERT_EQ(ours.hash(input),
                rte_softrss(host.data(), static_cast<std::uint32_t>(words), key.data()));
    }
  }
}

TEST(flow_owner, spreads_flows_evenly_and_needs_no_secret_but_the_seed) {
  EXPECT_EQ(flow_owner::key_of(42), flow_owner::key_of(42));
  EXPECT_NE(flow_owner::key_of(42), flow_owner::key_of(43));
  for (const unsigned workers : {1u, 2u, 3u, 8u}) {
    const flow_owner owner{flow_owner::key_of(42), workers};
    std::vector<unsigned> flows(workers);
    const std::array<std::uint8_t, 4> vip{198, 51, 100, 10};
    for (unsigned i = 0; i < 40'000; ++i) {
      const std::array<std::uint8_t, 4> client{10, static_cast<std::uint8_t>(i >> 12), 0, 1};
      const unsigned w = owner.of(client.data(), vip.data(), 4,
                                  be16{static_cast<std::uint16_t>(1024 + i % 4096)}, be16{80});
      ASSERT_LT(w, workers);
      ++flows[w];
    }
    // 128 entries over 3 workers are 43, 43 and 42.
    for (const unsigned n : flows) EXPECT_NEAR(n, 40'000.0 / workers, 2'000) << workers;
  }
}

}  // namespace
}  // namespace sluice
