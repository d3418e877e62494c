// SPDX-License-Identifier: Apache-2.0
// Bytes as a keepalived.conf or as lines of ipvsadm. What is imported is a state that a
// services.yaml can hold; a note is one line.
#include <cstdint>
#include <string_view>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "tests/fuzz/require.hpp"
#include "tools/import/import.hpp"

using sluice::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  for (const auto& got :
       {importing::from_keepalived(text, "f"), importing::from_ipvsadm(text, "f")}) {
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
