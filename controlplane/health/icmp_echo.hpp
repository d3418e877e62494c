// SPDX-License-Identifier: Apache-2.0
// ICMP echo (RFC 792, RFC 4443): requests, and what is said to them. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dataplane/abi/net_types.hpp"

namespace sluice::health {

struct echo_id {
  std::uint16_t identifier{};
  std::uint16_t sequence{};

  bool operator==(const echo_id&) const = default;
};

// echo_request() is a request with eight bytes of data; the checksum only where v4.
[[nodiscard]] std::string echo_request(bool v4, echo_id id, std::uint64_t data);

// echo_news: a reply, or an error that quotes a request.
struct echo_news {
  echo_id id;
  std::optional<std::uint64_t> data;  // of a reply
  std::optional<ip_address> quoted;   // of an error: where the request was sent to
  std::string error;                  // "host unreachable"; empty: a reply
};

// read_echo() reads a message; nothing: neither. skip_ipv4 passes over an IPv4 header, which raw
// sockets have in front.
[[nodiscard]] std::optional<echo_news> read_echo(bool v4, std::string_view message,
                                                 bool skip_ipv4 = false);

}  // namespace sluice::health
