// SPDX-License-Identifier: Apache-2.0
// The examples of docs/configuration.md are what the parsers take.
#include <gtest/gtest.h>

#include "controlplane/config/config.hpp"

namespace sluice {
namespace {

TEST(documentation, the_examples_are_valid) {
  const auto page = read_text_file(SLUICE_SOURCE_ROOT "/docs/configuration.md");
  ASSERT_TRUE(page) << page.error().to_string();
  constexpr std::string_view fence = "```yaml\n";
  std::vector<std::string> blocks;
  for (std::size_t at = 0; (at = page->find(fence, at)) != page->npos;) {
    at += fence.size();
    const std::size_t end = page->find("```", at);
    blocks.push_back(page->substr(at, end - at));
    at = end;
  }
  ASSERT_EQ(blocks.size(), 2u);
  const auto node = parse_node_text(blocks[0], "node.yaml");
  ASSERT_TRUE(node) << to_string(node.error());
  const auto state = config::parse_services(blocks[1], "services.yaml", config::context::of(*node));
  ASSERT_TRUE(state) << to_string(state.error());
  EXPECT_EQ(state->services.size(), 3u);
}

}  // namespace
}  // namespace sluice
