// SPDX-License-Identifier: Apache-2.0
// Flows over several workers, each with a path and a table of its own, and a NIC that gives
// packets to the wrong ones. What a path hands over goes to the path it names.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

#include "tests/packet/bench.hpp"
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/table_builder.hpp"

namespace sluice::test {
namespace {

constexpr std::uint8_t all_flags =
    abi::backend_in_use | abi::backend_keeps_connections | abi::backend_has_next_hop;

class steering : public ::testing::TestWithParam<unsigned> {
 protected:
  steering() : owner{flow_owner::key_of(42), GetParam()} {
    tables.header().source4 = {ip_address::v4({192, 0, 2, 10}), 32, 1, {}};
    std::vector<table_builder::backend_spec> some;
    for (std::uint8_t i = 0; i < 4; ++i)
      some.push_back({ip_address::v4({10, 0, 0, i}), {2, 0, 0, 0, 0xb, i}, 0, 1500, all_flags});
    tables.add_service(ip_address::v4({198, 51, 100, 10}), ip_proto::tcp, 443, 443,
                       abi::forward_mode::ipip, some);
    tables.add_service(ip_address::v6(vip6), ip_proto::tcp, 443, 443, abi::forward_mode::dsr_l2,
                       some);
    for (unsigned w = 0; w < GetParam(); ++w)
      workers.push_back(std::make_unique<bench>(tables.view()));
  }
  void steer() {
    for (unsigned w = 0; w < workers.size(); ++w) workers[w]->path().set_owner(&owner, w);
  }
  // leave_table() gives all slots of the services to one backend.
  void leave_table(std::uint16_t member) {
    for (std::uint32_t k = 0; k < 2; ++k) {
      const abi::service_row& s = tables.service(k);
      for (std::uint32_t i = 0; i < s.table_size; ++i) tables.table(s)[i] = member;
    }
  }
  // arrive() has a packet come to a worker; returns the backend that it reached.
  std::uint32_t arrive(unsigned worker, const bytes& frame) {
    result r = workers[worker]->run(frame);
    if (r.outcome == verdict::hand_over) {
      ++moved;
      EXPECT_EQ(r.frame, frame) << "a packet that is handed over is untouched";
      EXPECT_NE(r.out_port, worker);
      EXPECT_LT(r.out_port, workers.size());
      r = workers[r.out_port]->run_handed(frame);
    }
    EXPECT_EQ(r.outcome, verdict::forward);
    return r.backend.index();
  }
  static bytes segment(unsigned flow, unsigned flags) {
    if (flow % 3 == 0) return ethernet(0x86dd, ip6({}, tcp({10000 + flow, 443, flags})));
    return ethernet(0x0800, ip4({}, tcp({10000 + flow, 443, flags})));
  }
  // changed() opens 300 connections, changes the table, and lets each send ten packets
  // through workers at random; returns how many reached another backend than before.
  unsigned changed() {
    std::mt19937 random{1};
    const auto any = [&] { return static_cast<unsigned>(random() % workers.size()); };
    std::map<unsigned, std::uint32_t> backend;
    for (unsigned flow = 0; flow < 300; ++flow) backend[flow] = arrive(any(), segment(flow, 0x02));
    for (unsigned flow = 0; flow < 300; ++flow)
      EXPECT_EQ(arrive(any(), segment(flow, 0x10)), backend[flow]) << "while the table is the same";
    leave_table(3);
    unsigned wrong = 0;
    for (unsigned flow = 0; flow < 300; ++flow) {
      bool other = false;
      for (int i = 0; i < 10; ++i) other |= arrive(any(), segment(flow, 0x18)) != backend[flow];
      wrong += other;
    }
    return wrong;
  }
  table_builder tables;
  flow_owner owner;
  std::vector<std::unique_ptr<bench>> workers;
  unsigned moved{0};
};

TEST_P(steering, no_connection_changes_its_backend_whatever_the_nic_does) {
  steer();
  EXPECT_EQ(changed(), 0u);
  EXPECT_EQ(moved == 0, GetParam() == 1);
  std::uint64_t tracked = 0;
  for (const auto& w : workers) tracked += w->table().v4.size() + w->table().v6.size();
  EXPECT_EQ(tracked, 300u) << "each connection is in one table";
}

TEST_P(steering, without_it_wrong_rss_shows) {
  const unsigned wrong = changed();
  EXPECT_EQ(moved, 0u);
  if (GetParam() == 1) {
    EXPECT_EQ(wrong, 0u);
  } else {
    EXPECT_GT(wrong, 50u) << "or the test above would prove nothing";
  }
}

TEST_P(steering, icmp_errors_go_to_the_owner_of_the_flow_that_they_quote) {
  steer();
  std::mt19937 random{2};
  const auto any = [&] { return static_cast<unsigned>(random() % workers.size()); };
  std::map<unsigned, std::uint32_t> backend;
  for (unsigned flow = 1; flow < 300; flow += 3) backend[flow] = arrive(any(), segment(flow, 2));
  leave_table(3);
  for (const auto& [flow, first] : backend) {
    const bytes quote = ip4({.source = quad{198, 51, 100, 10}, .destination = quad{203, 0, 113, 7}},
                            tcp({443, 10000 + flow, 16}));
    const bytes error = ethernet(
        0x0800, ip4({.source = quad{203, 0, 113, 99}, .protocol = 1}, icmp4(3, 1, 0, quote)));
    EXPECT_EQ(arrive(any(), error), first);
  }
}

TEST_P(steering, what_is_handed_over_stays) {
  steer();
  for (unsigned flow = 0; flow < 100; ++flow)
    for (const auto& w : workers)
      EXPECT_NE(w->run_handed(segment(flow, 0x02)).outcome, verdict::hand_over);
}

TEST_P(steering, what_is_for_no_service_is_not_handed_over) {
  steer();
  for (const auto& w : workers)
    for (unsigned flow = 1; flow < 100; ++flow) {
      const bytes frame = ethernet(0x0800, ip4({}, tcp({10000 + flow, 444, 0x02})));
      EXPECT_EQ(w->run(frame).outcome, verdict::drop);
    }
}

INSTANTIATE_TEST_SUITE_P(workers, steering, ::testing::Values(1u, 2u, 3u, 8u));

}  // namespace
}  // namespace sluice::test
