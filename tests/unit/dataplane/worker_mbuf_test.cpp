// SPDX-License-Identifier: Apache-2.0
// mbufs to packets and back: growing at the front, shrinking at the end, chains. The mbufs
// are made by hand, reference counts and all: no EAL.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "dataplane/worker/mbuf_packet.hpp"

namespace sluice {
namespace {

class chain : public testing::Test {
 protected:
  // make() links segments of these lengths. Each has an extra reference, so that freeing
  // it does not look for a pool.
  rte_mbuf& make(const std::vector<std::uint16_t>& lengths) {
    mbufs_.assign(lengths.size(), {});
    buffers_.resize(lengths.size());
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      rte_mbuf& m = mbufs_[i];
      m.buf_addr = buffers_[i].data();
      m.buf_len = static_cast<std::uint16_t>(buffers_[i].size());
      m.data_off = 128;
      m.data_len = lengths[i];
      m.nb_segs = 1;
      rte_mbuf_refcnt_set(&m, 2);
      if (i > 0) mbufs_[i - 1].next = &m;
      mbufs_[0].pkt_len += lengths[i];
    }
    mbufs_[0].nb_segs = static_cast<std::uint16_t>(lengths.size());
    return mbufs_[0];
  }
  bool freed(std::size_t i) { return rte_mbuf_refcnt_read(&mbufs_[i]) == 1; }

  std::vector<rte_mbuf> mbufs_;
  std::vector<std::array<std::byte, 2048>> buffers_;
};

TEST_F(chain, a_packet_describes_the_first_segment_and_the_whole) {
  rte_mbuf& m = make({100, 50});
  packet p{};
  to_packet(m, 3, p);
  EXPECT_EQ(p.data, buffers_[0].data() + 128);
  EXPECT_EQ(p.length, 100u);
  EXPECT_EQ(p.total_length, 150u);
  EXPECT_EQ(p.headroom, 128u);
  EXPECT_EQ(p.in_port, 3u);
}

// The path judges by the bytes alone: with or without a hash of the NIC's, whatever it says of
// checksums, tags and headers; and it asks the NIC for nothing in turn.
TEST_F(chain, what_the_nic_says_of_a_frame_changes_nothing) {
  rte_mbuf& m = make({100, 50});
  const packet untold = [&m] {
    packet p{};
    to_packet(m, 3, p);
    return p;
  }();
  const std::uint64_t told[] = {
      RTE_MBUF_F_RX_RSS_HASH,
      RTE_MBUF_F_RX_RSS_HASH | RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD,
      RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_BAD,
      RTE_MBUF_F_RX_IP_CKSUM_NONE | RTE_MBUF_F_RX_L4_CKSUM_NONE,
      RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD | RTE_MBUF_F_RX_OUTER_L4_CKSUM_BAD,
      RTE_MBUF_F_RX_FDIR | RTE_MBUF_F_RX_FDIR_ID | RTE_MBUF_F_RX_VLAN,
  };
  for (const std::uint64_t flags : told) {
    m.ol_flags = flags;
    m.hash.rss = 0xdeadbeef;
    m.packet_type = RTE_PTYPE_L3_IPV6 | RTE_PTYPE_L4_UDP;  // which it need not be
    m.vlan_tci = 7;
    packet p{};
    to_packet(m, 3, p);
    EXPECT_EQ(p.data, untold.data);
    EXPECT_EQ(p.length, untold.length);
    EXPECT_EQ(p.total_length, untold.total_length);
    EXPECT_EQ(p.headroom, untold.headroom);
    p.data -= 20;
    p.total_length += 20;
    from_packet(p, m);
    EXPECT_EQ(m.ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK, 0u) << flags;
    EXPECT_EQ(m.pkt_len, 170u);
    rte_pktmbuf_adj(&m, 20);
  }
}

TEST_F(chain, an_outer_header_grows_it_at_the_front) {
  rte_mbuf& m = make({100, 50});
  packet p{};
  to_packet(m, 0, p);
  p.data -= 20;
  p.total_length += 20;
  from_packet(p, m);
  EXPECT_EQ(m.data_off, 108u);
  EXPECT_EQ(m.data_len, 120u);
  EXPECT_EQ(m.pkt_len, 170u);
  EXPECT_EQ(m.nb_segs, 2u);
}

TEST_F(chain, a_tag_taken_off_shrinks_it_at_the_front) {
  rte_mbuf& m = make({100});
  packet p{};
  to_packet(m, 0, p);
  p.data += 4;
  p.total_length -= 4;
  from_packet(p, m);
  EXPECT_EQ(m.data_off, 132u);
  EXPECT_EQ(m.data_len, 96u);
  EXPECT_EQ(m.pkt_len, 96u);
}

TEST_F(chain, padding_is_cut_off) {
  rte_mbuf& m = make({60});
  packet p{};
  to_packet(m, 0, p);
  p.data -= 20;
  p.total_length = 66;  // 14 + 20 + 32: 14 bytes of padding are gone
  from_packet(p, m);
  EXPECT_EQ(m.data_len, 66u);
  EXPECT_EQ(m.pkt_len, 66u);
}

TEST_F(chain, padding_over_several_segments) {
  rte_mbuf& m = make({100, 10, 10});
  packet p{};
  to_packet(m, 0, p);
  p.total_length = 105;
  from_packet(p, m);
  EXPECT_EQ(m.nb_segs, 2u);
  EXPECT_EQ(m.pkt_len, 105u);
  EXPECT_EQ(mbufs_[1].data_len, 5u);
  EXPECT_EQ(mbufs_[1].next, nullptr);
  EXPECT_FALSE(freed(1));
  EXPECT_TRUE(freed(2));
}

TEST_F(chain, cut_at_a_segments_end_leaves_none_empty) {
  rte_mbuf& m = make({100, 10});
  packet p{};
  to_packet(m, 0, p);
  p.total_length = 100;
  from_packet(p, m);
  EXPECT_EQ(m.nb_segs, 1u);
  EXPECT_EQ(m.next, nullptr);
  EXPECT_EQ(m.data_len, 100u);
  EXPECT_TRUE(freed(1));
}

}  // namespace
}  // namespace sluice
