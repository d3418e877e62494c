// SPDX-License-Identifier: Apache-2.0
// Any line of an agent: parsed to something bounded and printable, and taken twice changes
// nothing the second time.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "controlplane/agent/words.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice::agent;
  const report r = parse({reinterpret_cast<const char*>(data), size});
  const auto printable = [](std::string_view s) {
    for (const char c : s)
      if (c < 0x20 || c > 0x7e) return false;
    return s.size() <= longest_text;
  };
  if (!printable(r.text) || !printable(r.word) || r.unknown.size() > 8) std::abort();
  for (const auto& u : r.unknown)
    if (!printable(u)) std::abort();
  standing_report s;
  s.take(r);
  if (s.take(r)) std::abort();
  return 0;
}
