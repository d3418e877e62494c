// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of tests/fuzz/corpus/path from the rows: make_corpus DIRECTORY. Run by
// hand when rows of a new kind are added.
#include <fstream>
#include <iostream>

#include "tests/fuzz/path_input.hpp"
#include "tests/packet/rows.hpp"

int main(int argc, char** argv) {
  using namespace sluice::test;
  if (argc != 2) {
    std::cerr << "usage: make_corpus DIRECTORY\n";
    return 2;
  }
  std::vector<row> rows;
  for (const auto& some : {ipv4_rows(), ipv6_rows(), modes_rows(), refused_rows(), kernel_rows(),
                           icmp_rows(), mss_rows()})
    for (const row& r : some)
      if (r.in.size() <= 400) rows.push_back(r);
  // A few rows per file, as the fuzzer joins inputs by itself.
  unsigned file = 0;
  for (std::size_t i = 0; i < rows.size(); i += 6) {
    bytes seed;
    for (std::size_t k = i; k < std::min(rows.size(), i + 6); ++k)
      append_record(seed, static_cast<std::uint8_t>(k % 3 == 2 ? fuzz_new_burst : 0), rows[k].in);
    // Again, so that the packets find their connections.
    append_record(seed, fuzz_new_burst | fuzz_fix_checksum, rows[i].in);
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
