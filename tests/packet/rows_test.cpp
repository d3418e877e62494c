// SPDX-License-Identifier: Apache-2.0
// Runs the rows: each alone, all in one stream, and each cut off at every byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/packet/bench.hpp"
#include "tests/packet/rows.hpp"

namespace sluice::test {
namespace {

std::string_view name_of(abi::counter_id id) {
  return id < abi::counter_id::count_ ? abi::counter_infos[static_cast<std::size_t>(id)].name
                                      : "none";
}

input input_of(const row& r) {
  return {r.in, r.in_port, r.headroom, r.first_segment};
}

void check(const row& r, const result& got) {
  SCOPED_TRACE(r.what);
  ASSERT_EQ(static_cast<int>(got.outcome), static_cast<int>(r.outcome))
      << "dropped for: " << name_of(got.reason);
  switch (r.outcome) {
    case verdict::forward:
      EXPECT_EQ(static_cast<unsigned>(got.service), r.service);
      EXPECT_EQ(got.out_port, out_port_of(r.service));
      EXPECT_EQ(hex(got.frame), hex(r.out));
      break;
    case verdict::drop:
      EXPECT_EQ(name_of(got.reason), name_of(r.reason));
      EXPECT_EQ(hex(got.frame), hex(bytes(r.in.begin(), r.in.end())))
          << "a dropped packet was changed";
      break;
    case verdict::reply:
      EXPECT_EQ(got.out_port, r.in_port);
      EXPECT_EQ(name_of(got.reason), name_of(r.reason));
      EXPECT_EQ(hex(got.frame), hex(r.out));
      break;
    case verdict::held:
    case verdict::hand_over:
      break;
    case verdict::kernel:
      EXPECT_EQ(static_cast<int>(got.why), static_cast<int>(r.why));
      EXPECT_EQ(hex(got.frame), hex(r.in)) << "a packet for the kernel was changed";
      break;
  }
}

class rows : public ::testing::Test {
 protected:
  rows() { fill_config(tables); }
  table_builder tables;
};

TEST_F(rows, each_alone) {
  for (const row& r : all_rows()) {
    bench b{tables.view()};
    check(r, b.run({input_of(r)})[0]);
    // Everything that comes in is counted exactly once, and the drop under its name.
    EXPECT_EQ(b.decided(), 1u) << r.what;
    if (r.outcome == verdict::drop) {
      EXPECT_EQ(b.count(r.reason), 1u) << r.what;
    }
  }
}

TEST_F(rows, what_a_port_without_a_kernel_drops) {
  for (const row& r : kernel_rows()) {
    bench b{tables.view()};
    input in = input_of(r);
    in.in_port = wire_port;
    check(dropped(r.what, r.in, r.reason), b.run({in})[0]);
    in.in_port = 200;  // no port of ours: has no kernel either
    check(dropped(r.what, r.in, r.reason), b.run({in})[0]);
  }
}

// The same verdicts and bytes whatever else is in the burst, and again for the packets
// that now find a connection.
TEST_F(rows, all_in_one_stream) {
  const std::vector<row> all = all_rows();
  bench b{tables.view()};
  for (int round = 0; round < 3; ++round)
    for (const std::size_t size : {1u, 7u, 32u, 256u, 300u})
      for (std::size_t at = 0; at < all.size(); at += size) {
        std::vector<input> in;
        for (std::size_t i = at; i < std::min(all.size(), at + size); ++i)
          in.push_back(input_of(all[i]));
        const std::vector<result> out = b.run(in);
        for (std::size_t i = 0; i < out.size(); ++i) check(all[at + i], out[i]);
      }
  EXPECT_TRUE(b.table().v4.consistent());
  EXPECT_TRUE(b.table().v6.consistent());
}

TEST_F(rows, every_reason_of_the_path_has_a_row) {
  using enum abi::counter_id;
  std::set<abi::counter_id> seen;
  for (const row& r : all_rows())
    if (r.reason != count_) seen.insert(r.reason);
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto id = static_cast<abi::counter_id>(i);
    // Elsewhere: no_tables and bad_table in tables_test.cpp; tx_full is the worker's; those
    // behind it depend on more than one packet.
    if (!abi::counter_infos[i].drop || id == drop_no_tables || id == drop_bad_table ||
        id >= drop_tx_full)
      continue;
    EXPECT_TRUE(seen.contains(id)) << name_of(id);
  }
  EXPECT_GE(all_rows().size(), 300u);
}

// Any packet, cut off at any byte: never forwarded beyond what is there, never read past
// the end (the bench's blocks end where the frame ends), never a wrong verdict.
TEST_F(rows, cut_at_every_byte) {
  bench b{tables.view()};
  for (const row& r : all_rows()) {
    if (r.in.size() > 2000) continue;  // too many of them; the headers are the same
    std::vector<input> in;
    for (std::size_t n = 0; n < r.in.size(); ++n)
      in.push_back({bytes(r.in.begin(), r.in.begin() + static_cast<std::ptrdiff_t>(n)), r.in_port});
    const std::vector<result> out = b.run(in);
    for (std::size_t n = 0; n < out.size(); ++n) {
      if (out[n].outcome != verdict::forward) continue;
      // Only padding may be missing: then it is the whole packet that goes out.
      ASSERT_EQ(static_cast<int>(r.outcome), static_cast<int>(verdict::forward)) << r.what << n;
      bytes wanted = r.out;
      if (wanted.size() == r.in.size()) wanted.resize(n);  // what is not encapsulated keeps it
      EXPECT_EQ(hex(out[n].frame), hex(wanted)) << r.what << " cut at " << n;
    }
  }
}

// Any one bit changed: no crash, and the counters go on adding up.
TEST_F(rows, any_bit_flipped) {
  bench b{tables.view()};
  std::uint64_t packets = 0;
  for (const row& r : all_rows()) {
    const std::size_t limit = std::min<std::size_t>(r.in.size(), 120);
    std::vector<input> in;
    for (std::size_t bit = 0; bit < limit * 8; ++bit) {
      bytes frame = r.in;
      frame[bit / 8] = static_cast<std::uint8_t>(frame[bit / 8] ^ (1u << (bit % 8)));
      if (frame.size() > 2000) frame.resize(2000);
      in.push_back({std::move(frame), r.in_port, r.headroom});
    }
    packets += in.size();
    b.run(in);
  }
  EXPECT_EQ(b.decided() + b.waiting(), packets);
  EXPECT_TRUE(b.table().v4.consistent());
}

}  // namespace
}  // namespace sluice::test
