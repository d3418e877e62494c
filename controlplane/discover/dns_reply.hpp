// SPDX-License-Identifier: Apache-2.0
// A DNS reply (RFC 1035 section 4.1, RFC 2782) as what is asked of it here: the addresses or SRV
// records of its answer section, and how long they may be kept. Names are expanded by c-ares.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/net_types.hpp"

namespace sluice::discover {

enum class record_type : std::uint16_t { a = 1, aaaa = 28, srv = 33 };

struct srv_record {
  std::uint16_t priority{};
  std::uint16_t weight{};
  std::uint16_t port{};
  std::string target;

  auto operator<=>(const srv_record&) const = default;
};

struct dns_answer {
  std::uint32_t ttl{0xffffffff};  // the least, also of the aliases on the way; seconds
  std::vector<ip_address> addresses;
  std::vector<srv_record> services;
};

// parse_reply() takes a reply whose code says that all went well. Records of other types are
// passed over; one that does not fit its length, or the message, is an error.
[[nodiscard]] tl::expected<dns_answer, std::string> parse_reply(
    std::span<const std::uint8_t> message, record_type wanted);

}  // namespace sluice::discover
