// SPDX-License-Identifier: Apache-2.0
// Bytes as a file of tokens. What is accepted holds at least one; an error has its line, and
// is one line itself.
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/access/tokens.hpp"
#include "tests/fuzz/require.hpp"

using sluice::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  const auto list = access::token_list::parse(text, "f");
  if (!list) {
    require(!list.error().empty() && list.error().size() <= yaml::max_errors + 1,
            "errors are there, and bounded");
    for (const auto& e : list.error())
      require(e.to_string().find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  require(list->size() > 0, "what is accepted lets somebody in");
  require(!list->find(""), "but not everybody");
  // A line of its own is a token that is found, whatever else the file holds.
  const std::string more = std::string{text} + "\nadmin fuzz-fuzz-fuzz-fuzz\n";
  const auto again = access::token_list::parse(more, "f");
  if (again) require(again->find("fuzz-fuzz-fuzz-fuzz").has_value(), "a token is found");
  return 0;
}
