// SPDX-License-Identifier: Apache-2.0
// Files of tokens: who is let in, what is refused.
#include <gtest/gtest.h>

#include <string>

#include "controlplane/access/tokens.hpp"

namespace sluice::access {
namespace {

const std::string reader = "reader-0123456789";

std::string errors_of(const std::string& text) {
  const auto list = token_list::parse(text, "t");
  if (list) return "accepted";
  return to_string(list.error());
}

TEST(tokens, are_found_with_what_they_allow) {
  const auto list = token_list::parse("# who\n\nread-only " + reader +
                                          "\r\n\tadmin  admin-0123456789abc # all\n" +
                                          "heartbeat beat-0123456789abcd\n",
                                      "t");
  ASSERT_TRUE(list) << to_string(list.error());
  EXPECT_EQ(list->size(), 3u);
  EXPECT_EQ(list->find("beat-0123456789abcd"), role::heartbeat);
  EXPECT_EQ(list->find(reader), role::read_only);
  EXPECT_EQ(list->find("admin-0123456789abc"), role::admin);
  for (const char* other : {"", "admin", "reader-012345678", "reader-01234567890", "# all"})
    EXPECT_FALSE(list->find(other)) << other;
  EXPECT_FALSE(list->find(std::string_view{"reader-0123456789\0", 18}));
}

TEST(tokens, may_be_hashes) {
  // SHA-256 of "abc" (FIPS 180-2, appendix B.1), in either case.
  const std::string digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  for (std::string text : {digits, std::string{"BA78"} + digits.substr(4)}) {
    const auto list = token_list::parse("admin sha256:" + text, "t");
    ASSERT_TRUE(list);
    EXPECT_EQ(list->find("abc"), role::admin);
    EXPECT_FALSE(list->find("sha256:" + text));
  }
}

TEST(tokens, errors_name_the_line_and_no_token) {
  EXPECT_EQ(errors_of(""), "t: holds no token; expected lines such as: admin TOKEN");
  EXPECT_NE(errors_of("\nroot " + reader).find("t:2: "), std::string::npos);
  for (const char* line : {"admin", "admin short-secret", "admin sha256:12", "admin a-secret b",
                           "admin with\"quote-secret-secret", "admin sha256:secret"}) {
    const std::string said = errors_of(line);
    EXPECT_EQ(said.substr(0, 5), "t:1: ") << line;
    EXPECT_EQ(said.find("secret"), std::string::npos) << said;
  }
  EXPECT_NE(errors_of("admin " + reader + "\nread-only " + reader).find("t:2: "),
            std::string::npos);
  EXPECT_NE(errors_of("admin " + std::string(257, 'a')).find("16 to 256"), std::string::npos);
}

}  // namespace
}  // namespace sluice::access
