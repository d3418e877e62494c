// SPDX-License-Identifier: Apache-2.0
// A control plane gone mad: the rows of the config segment hold anything at all, and the
// packet path must neither crash nor read outside the segment. (It may misdirect.)
//
// Input: records of an offset (3 bytes), a length (1 byte, at most 16) and bytes that are
// written there; length 0 takes the generation up and runs the packets. They run again at
// the end, with connections from before.
#include <algorithm>
#include <utility>
#include <vector>

#include "tests/fuzz/choice_config.hpp"
#include "tests/packet/bench.hpp"
#include "tests/packet/rows.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

struct fuzz_world {
  table_builder tables;
  std::vector<std::pair<std::byte*, std::byte>> written;  // and what was there
  std::vector<input> packets;
  bench b;

  fuzz_world() : b{(fill_config(tables), add_choices(tables), tables.view()), 128} {
    std::size_t n = 0;
    for (const auto& rows : {ipv4_rows(), ipv6_rows(), kernel_rows()})
      for (const row& r : rows)
        if (r.in.size() < 200 && ++n % 3 == 0)
          packets.push_back({r.in, r.in_port, r.headroom, r.first_segment});
  }
  // at() is a byte of slot 0, or of the part of the arena that is in use.
  std::byte* at(std::size_t offset) {
    const abi::config_layout& l = tables.layout();
    const std::size_t slot = l.slot_bytes;
    constexpr std::size_t tables_in_use = 16 * 251 * 2;
    offset %= slot + tables_in_use;
    return tables.bytes() + (offset < slot ? l.slots + offset : l.arena + offset - slot);
  }
  void run() {
    abi::config_view view;
    if (!abi::config_view::open(tables.bytes(), table_builder::limits, 0, view)) return;
    b.path().set_view(view);
    b.run(packets);
    b.now_ns += 1'000'000'000;
    b.path().maintain(b.now_ns);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz_world world;
  unsigned runs = 0;
  while (size >= 4) {
    const std::size_t offset =
        data[0] | static_cast<std::size_t>(data[1]) << 8 | static_cast<std::size_t>(data[2]) << 16;
    const std::size_t n = std::min<std::size_t>(data[3] & 15u, size - 4);
    data += 4;
    size -= 4;
    if (n == 0 && ++runs <= 4) world.run();
    for (std::size_t i = 0; i < n; ++i) {
      std::byte* const to = world.at(offset + i);
      world.written.emplace_back(to, *to);
      *to = std::byte{data[i]};
    }
    data += n;
    size -= n;
  }
  world.run();
  for (; !world.written.empty(); world.written.pop_back())
    *world.written.back().first = world.written.back().second;
  world.run();
  auto& t = world.b.table();
  const auto all = [](auto) { return true; };
  t.v4.erase_if(0, t.v4.bucket_count(), all, [](auto) {});
  t.v6.erase_if(0, t.v6.bucket_count(), all, [](auto) {});
  return 0;
}
