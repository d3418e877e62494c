// SPDX-License-Identifier: Apache-2.0
// Bytes as a keepalived.conf or as lines of ipvsadm. What is imported is a state that a
// services.yaml can hold; a note is one line.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "tests/fuzz/require.hpp"
#include "tools/import/import.hpp"

using sluice::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  // Each file that is included is what follows the first NUL, or all of it again.
  const auto second = text.substr(std::min(text.find('\0') + 1, text.size()));
  std::size_t left = 6;  // files; more are for import_test
  const auto include = [second, &left](const std::string& pattern, const std::string&)
      -> tl::expected<std::vector<importing::source_file>, std::string> {
    if (pattern.size() % 3 == 0 || left < 2) return tl::unexpected{std::string{"is not there"}};
    left -= pattern.size() % 3;
    return std::vector<importing::source_file>(
        pattern.size() % 3, {"i", std::to_string(pattern.size()), std::string{second}});
  };
  for (const auto& got :
       {importing::from_keepalived(text, "f"), importing::from_keepalived(text, "f", include),
        importing::from_ipvsadm(text, "f")}) {
    if (!got) {
      require(got.error().to_string().find('\n') == std::string::npos, "an error is one line");
      continue;
    }
    const auto again = config::parse_services(model::to_yaml(got->state), "out", {});
    require(again.has_value() && *again == got->state, "what comes out is taken back");
    for (const config_error& n : got->notes)
      require(n.to_string().find('\n') == std::string::npos && n.line > 0,
              "a note is one line, and has one");
  }
  return 0;
}
