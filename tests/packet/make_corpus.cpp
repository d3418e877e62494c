// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of tests/fuzz/corpus/path from the rows: make_corpus DIRECTORY. Run by
// hand when rows of a new kind are added.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "tests/fuzz/path_input.hpp"
#include "tests/packet/icmp_builder.hpp"
#include "tests/packet/rows.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

// turned() is a frame with its ends exchanged (no options, no tags).
bytes turned(bytes frame) {
  const bool v4 = frame[12] == 8;
  const std::size_t n = v4 ? 4 : 16;
  const auto at = frame.begin() + (v4 ? 26 : 22);
  std::swap_ranges(at, at + static_cast<std::ptrdiff_t>(n), at + static_cast<std::ptrdiff_t>(n));
  std::swap_ranges(frame.begin() + (v4 ? 34 : 54), frame.begin() + (v4 ? 36 : 56),
                   frame.begin() + (v4 ? 36 : 56));
  return frame;
}

// error_about() is what a router on the way says that has no room for a frame (no options, no
// tags).
bytes error_about(const bytes& frame) {
  const bool v4 = frame[12] == 8;
  const bytes ip(frame.begin() + 14, frame.end());
  if (v4) {
    const quad to{ip[12], ip[13], ip[14], ip[15]};
    return ethernet(0x0800, ip4({.source = {10, 0, 9, 9}, .destination = to, .protocol = 1},
                                icmp4(3, 4, 1300, ip)));
  }
  hexadec from{0x20, 1, 0xd, 0xb8, 9};
  hexadec to{};
  std::copy_n(ip.begin() + 8, 16, to.begin());
  return ethernet(0x86dd, ip6({.source = from, .destination = to, .next = 58},
                              icmp6(from, to, 2, 0, 1300, ip)));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: make_corpus DIRECTORY\n";
    return 2;
  }
  std::vector<row> rows;
  for (const row& r : all_rows())
    if (r.in.size() <= 400) rows.push_back(r);
  // A few rows per file, as the fuzzer joins inputs by itself.
  unsigned file = 0;
  for (std::size_t i = 0; i < rows.size(); i += 6) {
    bytes seed;
    for (std::size_t k = i; k < std::min(rows.size(), i + 6); ++k)
      append_record(seed, static_cast<std::uint8_t>(k % 3 == 2 ? fuzz_new_burst : 0), rows[k].in);
    // Again, so that the packets find their connections.
    append_record(seed, fuzz_new_burst | fuzz_fix_checksum, rows[i].in);
    // What the backend of a nat service answers.
    for (std::size_t k = i; k < std::min(rows.size(), i + 6); ++k)
      if (rows[k].outcome == verdict::forward &&
          (rows[k].service == nat_tcp4 || rows[k].service == nat_tcp6)) {
        append_record(seed, fuzz_new_burst, turned(rows[k].out));
        // And what routers on either side of us say.
        append_record(seed, 0, error_about(rows[k].out));
        append_record(seed, 0, error_about(turned(rows[k].in)));
      }
    std::ofstream out{std::string{argv[1]} + "/rows" + std::to_string(file++), std::ios::binary};
    out.write(reinterpret_cast<const char*>(seed.data()),
              static_cast<std::streamsize>(seed.size()));
    if (!out) {
      std::cerr << argv[1] << ": cannot write\n";
      return 1;
    }
  }
  return 0;
}
