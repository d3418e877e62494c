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
    tables.add_service(ip_address::v4({198, 51, 100, 10}), ip_proto::udp, 53, 53,
                       abi::forward_mode::dsr_l2, some);
    for (unsigned w = 0; w < GetParam(); ++w)
      workers.push_back(std::make_unique<bench>(tables.view()));
  }
  void steer() {
    for (unsigned w = 0; w < workers.size(); ++w) workers[w]->path().set_owner(&owner, w);
  }
  // leave_table() gives all slots of the services to one backend.
  void leave_table(std::uint16_t member) {
    for (std::uint32_t k = 0; k < 3; ++k) {
      const abi::service_row& s = tables.service(k);
      for (std::uint32_t i = 0; i < s.table_size; ++i) tables.set_slot(s, i, member);
    }
  }
  // arrive() has a packet come to a worker; returns the backend that it reached.
  std::uint32_t arrive(unsigned worker, const bytes& frame) {
    result r = workers[worker]->run(frame);
    for (unsigned times = 0; r.outcome == verdict::hand_over && times < hand_overs; ++times) {
      ++moved;
      EXPECT_EQ(r.frame, frame) << "a packet that is handed over is untouched";
      EXPECT_NE(r.out_port, worker);
      EXPECT_LT(r.out_port, workers.size());
      worker = r.out_port;
      r = workers[worker]->run_handed(frame);
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
  unsigned hand_overs{1};  // that a packet may take to come to its owner
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

// Fragments have an owner by their addresses, and find their flow all the same: by way of it.
TEST_P(steering, fragments_go_where_their_flow_goes_whatever_the_scheduler) {
  for (const abi::scheduler kind : {abi::scheduler::maglev, abi::scheduler::round_robin}) {
    tables.service(2).kind = kind;
    for (const auto& w : workers) w->path().set_view(tables.view());
    steer();
    std::mt19937 random{3};
    const auto any = [&] { return static_cast<unsigned>(random() % workers.size()); };
    const auto datagram = [&](unsigned flow) {
      return udp({10000 + flow + 1000 * static_cast<unsigned>(kind), 53}, bytes(40, 7));
    };
    std::map<unsigned, std::uint32_t> backend;
    for (unsigned flow = 0; flow < 100; ++flow)
      backend[flow] = arrive(any(), ethernet(0x0800, ip4({.protocol = 17}, datagram(flow))));
    leave_table(3);
    hand_overs = 2;
    for (unsigned flow = 0; flow < 100; ++flow) {
      const bytes whole = datagram(flow);
      const ip4_fields first{.protocol = 17, .id = flow, .fragment = 0x2000};
      const ip4_fields later{.protocol = 17, .id = flow, .fragment = 3};
      const bytes head = ethernet(0x0800, ip4(first, bytes(whole.begin(), whole.begin() + 24)));
      const bytes tail = ethernet(0x0800, ip4(later, bytes(whole.begin() + 24, whole.end())));
      EXPECT_EQ(arrive(any(), head), backend[flow]);
      EXPECT_EQ(arrive(any(), tail), backend[flow]);
    }
  }
  std::uint64_t tracked = 0;
  for (const auto& w : workers) tracked += w->table().v4.size();
  EXPECT_EQ(tracked, 200u) << "each flow is in one table";
}

// A fragment that waits for its first one goes on to the flow's owner when that has come.
TEST_P(steering, early_fragments_follow_to_the_owner_of_the_flow) {
  steer();
  for (unsigned flow = 0; flow < 50; ++flow) {
    const bytes whole = udp({20000 + flow, 53}, bytes(40, 7));
    const ip4_fields first{.protocol = 17, .id = flow, .fragment = 0x2000};
    const ip4_fields later{.protocol = 17, .id = flow, .fragment = 3};
    const bytes head = ethernet(0x0800, ip4(first, bytes(whole.begin(), whole.begin() + 24)));
    const bytes tail = ethernet(0x0800, ip4(later, bytes(whole.begin() + 24, whole.end())));
    unsigned at = 0;
    result r = workers[at]->run(tail);
    if (r.outcome == verdict::hand_over) r = workers[at = r.out_port]->run_handed(tail);
    ASSERT_EQ(r.outcome, verdict::held);
    r = workers[at]->run(head);
    ASSERT_EQ(workers[at]->released().size(), 1u);
    result out = workers[at]->released()[0];
    if (r.outcome == verdict::hand_over) {
      ASSERT_EQ(out.outcome, verdict::hand_over);
      ASSERT_EQ(out.out_port, r.out_port);
      r = workers[r.out_port]->run_handed(head);
      out = workers[out.out_port]->run_handed(tail);
    }
    EXPECT_EQ(r.outcome, verdict::forward);
    EXPECT_EQ(out.outcome, verdict::forward);
    EXPECT_EQ(out.backend, r.backend);
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
