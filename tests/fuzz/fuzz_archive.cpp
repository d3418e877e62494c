// SPDX-License-Identifier: Apache-2.0
// Bytes as the data of a backup. What is accepted survives being written and read again;
// its texts are unpacked, whatever they hold, within their bounds.
#include <cstdint>
#include <string_view>

#include "controlplane/backup/archive.hpp"
#include "dataplane/abi/yaml_reader.hpp"
#include "tests/fuzz/require.hpp"

using sluice::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view bytes{reinterpret_cast<const char*>(data), size};
  const auto a = backup::parse_archive(bytes);
  if (!a) {
    require(!a.error().empty() && a.error().find('\n') == std::string::npos, "a refusal says why");
    return 0;
  }
  const auto again = backup::parse_archive(backup::to_bytes(*a));
  require(again && *again == *a, "what is written is read again");
  store::text_reader reader;
  for (const auto& r : a->revisions) {
    require(r.number > 0 && r.keyframe <= r.number, "numbers make sense");
    if (const auto text = reader.next(r))
      require(text->size() <= yaml::max_bytes, "a text is bounded");
    (void)store::unpack(r.body, {});
  }
  return 0;
}
