// SPDX-License-Identifier: Apache-2.0
// Bytes as a file of prefixes. What is accepted is found by the workers' look-up, as the
// prefixes say, and survives being written and read again.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/lists/prefix_file.hpp"
#include "controlplane/lists/range_set.hpp"
#include "tests/fuzz/require.hpp"

using sluice::test::require;

namespace {

using sluice::ip_address;
using sluice::ip_prefix;

bool inside(const ip_prefix& p, const ip_address& a) {
  if (p.address.is_v4() != a.is_v4()) return false;
  const unsigned bits = p.length + (a.is_v4() ? 96u : 0u);
  for (unsigned i = 0; i < bits; ++i)
    if (((p.address.bytes[i / 8] ^ a.bytes[i / 8]) >> (7 - i % 8) & 1) != 0) return false;
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  const auto read = lists::parse_prefixes(text, "f");
  if (!read) {
    require(!read.error().empty() && read.error().size() <= yaml::max_errors + 1,
            "errors are there, and bounded");
    for (const auto& e : read.error()) {
      require(e.line > 0 && !e.message.empty(), "an error has a line and a message");
      require(e.to_string().find('\n') == std::string::npos, "an error is one line");
    }
    return 0;
  }
  std::string written;
  for (const ip_prefix& p : *read) written += format_prefix(p) + "\n";
  const auto again = lists::parse_prefixes(written, "f");
  require(again && *again == *read, "what is written is read again");

  const lists::range_set set{*read};
  require(set.valid() && set.size() <= read->size(), "ranges are ascending, and not more");
  struct alignas(64) line {
    std::array<std::byte, 64> bytes;
  };
  static std::vector<line> memory;
  memory.resize(set.bytes() / 64 + 1);
  std::byte* const base = memory.data()->bytes.data();
  const abi::prefix_list row = set.write(base, 0);
  for (const ip_prefix& p : *read) {
    ip_address last = p.address;
    for (unsigned i = p.length + (p.address.is_v4() ? 96u : 0u); i < 128; ++i)
      last.bytes[i / 8] = static_cast<std::uint8_t>(last.bytes[i / 8] | 0x80u >> i % 8);
    ip_address next = last;
    ++next.bytes[15];
    for (const ip_address& a : {p.address, last, next}) {
      const bool expected =
          std::any_of(read->begin(), read->end(), [&](const auto& q) { return inside(q, a); });
      require(row.holds(base, 0, set.bytes(), a) == expected, "the look-up finds what is listed");
    }
  }
  return 0;
}
