// SPDX-License-Identifier: Apache-2.0
// The whole packet path under any bytes: whatever arrives, nothing is read or written out
// of bounds, everything is counted once, and what is forwarded is right.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/path_input.hpp"
#include "tests/packet/rows.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

[[noreturn]] void wrong(const char* what, const input& in, const result& out) {
  std::fprintf(stderr, "%s\n in:\n%s\n out:\n%s\n", what, hex(in.frame).c_str(),
               hex(out.frame).c_str());
  std::abort();
}

unsigned word(const bytes& b, std::size_t at) {
  return static_cast<unsigned>(b[at]) << 8 | b[at + 1];
}

// check_forwarded() takes the frame apart again, with nothing of the code under test.
void check_forwarded(table_builder& tables, const input& in, const result& out) {
  const bytes& f = out.frame;
  const bytes& was = in.frame;
  const auto need = [&](bool holds, const char* what) {
    if (!holds) wrong(what, in, out);
  };
  std::size_t l3 = 14;
  while (l3 <= 18 && (word(was, l3 - 2) == 0x8100 || word(was, l3 - 2) == 0x88a8)) l3 += 4;
  const abi::backend_row& row = tables.backend(out.backend.index());
  need(out.service == row.service, "service is not the backend's");
  need(out.out_port == row.out_port && out.out_port < 2, "out_port is not the backend's");
  need(std::equal(row.next_hop.begin(), row.next_hop.end(), f.begin()), "next hop");
  const mac from = port_mac_of(out.out_port);
  need(std::equal(from.begin(), from.end(), f.begin() + 6), "source MAC");
  const bool v4 = word(was, l3 - 2) == 0x0800;
  if (row.mode == abi::forward_mode::dsr_l2) {
    need(f.size() == was.size() && std::equal(f.begin() + 12, f.end(), was.begin() + 12),
         "dsr-l2 changed more than MAC addresses");
    return;
  }
  need(
      std::equal(f.begin() + 12, f.begin() + static_cast<std::ptrdiff_t>(l3) - 2, was.begin() + 12),
      "VLAN tags");
  const std::size_t length = v4 ? word(was, l3 + 2) : 40u + word(was, l3 + 4);
  need(was.size() >= l3 + length, "forwarded more than there was");
  const bool outer4 = row.address.is_v4();
  const std::size_t inner = l3 + (outer4 ? 20u : 40u);
  need(f.size() == inner + length, "length of the frame");
  const unsigned tos = v4 ? was[l3 + 1] : (word(was, l3) >> 4) & 0xff;
  if (outer4) {
    need(word(f, l3 - 2) == 0x0800 && f[l3] == 0x45, "outer IPv4 header");
    need(f[l3 + 1] == tos, "DSCP and ECN");
    need(word(f, l3 + 2) == f.size() - l3, "outer total length");
    need(word(f, l3 + 4) == 0 && word(f, l3 + 6) == 0x4000 && f[l3 + 8] == 64, "id, DF, TTL");
    need(f[l3 + 9] == (v4 ? 4 : 41), "outer protocol");
    need(checksum_of(f, l3, 20) == 0, "outer checksum");
    need(std::equal(outer_source4.begin(), outer_source4.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 12),
         "outer source");
    need(std::equal(backend4.begin(), backend4.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 16),
         "outer destination");
  } else {
    need(word(f, l3 - 2) == 0x86dd && f[l3] >> 4 == 6, "outer IPv6 header");
    need(((word(f, l3) >> 4) & 0xff) == tos, "traffic class");
    need(word(f, l3 + 4) == length && f[l3 + 6] == (v4 ? 4 : 41) && f[l3 + 7] == 64,
         "outer payload length, next header, hop limit");
    need(std::equal(outer_source6.begin(), outer_source6.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 8),
         "outer source");
    need(std::equal(backend6.begin(), backend6.end(),
                    f.begin() + static_cast<std::ptrdiff_t>(l3) + 24),
         "outer destination");
  }
  // The inner packet: as it was, one hop on.
  bytes expected(was.begin() + static_cast<std::ptrdiff_t>(l3),
                 was.begin() + static_cast<std::ptrdiff_t>(l3 + length));
  std::uint8_t& ttl = expected[v4 ? 8 : 7];
  need(ttl > 1, "TTL");
  --ttl;
  if (v4) {
    const std::size_t header = (expected[0] & 0xfu) * 4;
    need(checksum_of(was, l3, header) == 0, "forwarded a wrong checksum");
    expected[10] = expected[11] = 0;
    const unsigned sum = checksum_of(expected, 0, header);
    expected[10] = static_cast<std::uint8_t>(sum >> 8);
    expected[11] = static_cast<std::uint8_t>(sum);
    need((word(was, l3 + 6) & 0x3fff) == 0, "forwarded a fragment");
  }
  need(std::equal(expected.begin(), expected.end(), f.begin() + static_cast<std::ptrdiff_t>(inner)),
       "inner packet");
}

struct fuzz_world {
  table_builder tables;
  bench b;
  fuzz_world() : b{(fill_config(tables), tables.view()), 256} {}

  std::uint64_t decided() {
    std::uint64_t n = b.count(abi::counter_id::forwarded) + b.count(abi::counter_id::to_kernel);
    for (std::size_t i = 0; i < abi::counter_count; ++i)
      if (abi::counter_infos[i].drop) n += b.count(static_cast<abi::counter_id>(i));
    return n;
  }
  void run(const std::vector<input>& burst) {
    if (burst.empty()) return;
    const std::uint64_t before = decided();
    const std::vector<result> out = b.run(burst);
    if (decided() - before != burst.size()) wrong("not counted once", burst[0], out[0]);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (out[i].outcome == verdict::forward) {
        check_forwarded(tables, burst[i], out[i]);
      } else if (out[i].frame != burst[i].frame) {
        wrong("changed, but not forwarded", burst[i], out[i]);
      } else if (out[i].outcome == verdict::kernel && burst[i].in_port != kernel_port) {
        wrong("left to a kernel that is not there", burst[i], out[i]);
      }
    }
  }
  // The same input gives the same run: no connections are left from the one before.
  void reset() {
    const auto all = [](auto) { return true; };
    const auto nothing = [](auto) {};
    auto& t = b.table();
    if (!t.v4.consistent() || !t.v6.consistent()) {
      std::fputs("the connection table is inconsistent\n", stderr);
      std::abort();
    }
    t.v4.erase_if(0, t.v4.bucket_count(), all, nothing);
    t.v6.erase_if(0, t.v6.bucket_count(), all, nothing);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz_world world;
  std::vector<input> burst;
  for (fuzz_record& r : records_of(data, size)) {
    if ((r.flags & (fuzz_new_burst | fuzz_time_passes)) != 0) {
      world.run(burst);
      burst.clear();
    }
    if ((r.flags & fuzz_time_passes) != 0) {
      world.b.now_ns += 20'000'000'000u;
      world.b.path().maintain(world.b.now_ns);
    }
    burst.push_back(std::move(r.in));
  }
  world.run(burst);
  world.reset();
  return 0;
}
