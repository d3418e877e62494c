// SPDX-License-Identifier: Apache-2.0
// Bytes as the manifest of a backup: as they are, and with a right checksum at their end,
// which lets them get further. What is accepted is what would be written.
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/backup/manifest.hpp"
#include "controlplane/backup/time_text.hpp"
#include "tests/fuzz/require.hpp"

using sluice::test::require;

namespace {

void try_manifest(std::string_view text) {
  using namespace sluice::backup;
  const auto m = parse_manifest(text);
  if (!m) {
    require(!m.error().empty() && m.error().size() < 300, "a refusal says why, briefly");
    require(m.error().find('\n') == std::string::npos, "an error is one line");
    return;
  }
  require(to_text(*m) == text, "what is accepted is what is written");
  require(m->number > 0 && m->first > 0 && m->first <= m->last + 1, "numbers make sense");
  (void)to_json(*m).dump();  // throws: not UTF-8
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  try_manifest(text);
  std::string summed{text};
  summed += "sha256: " + store::to_hex(store::sha256(text)) + "\n";
  try_manifest(summed);
  if (const auto ms = backup::parse_time(text)) {
    const auto again = backup::parse_time(backup::format_time(*ms));
    // An offset may lead out of the years that are read.
    require(*ms < 0 || *ms >= 253402300800000 || again == ms, "a time is written and read again");
  }
  return 0;
}
