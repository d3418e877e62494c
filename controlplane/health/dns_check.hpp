// SPDX-License-Identifier: Apache-2.0
// A DNS query (RFC 1035 section 4.1), and whether a reply to it says that all is well. Nothing
// behind the question of a reply is looked at. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::health {

// dns_query() asks for a name (without a dot at its end; empty: the root) with recursion
// desired; empty: that is no name.
[[nodiscard]] std::string dns_query(std::uint16_t id, std::string_view name, std::uint16_t record);

struct dns_verdict {
  bool ours{};       // false: no reply to this query, to be passed over
  bool ok{};         // NOERROR, also without records
  std::string text;  // "DNS SERVFAIL"
};
[[nodiscard]] dns_verdict judge_dns_reply(std::string_view message, std::uint16_t id,
                                          std::string_view name, std::uint16_t record);

}  // namespace sluice::health
