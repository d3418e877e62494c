// SPDX-License-Identifier: Apache-2.0
// The socket calls that client and server share.
#pragma once

#include <cstdint>
#include <string>

#include "tests/end_to_end/flowgen/options.hpp"

namespace sluice::flowgen {

// parse_endpoint() reads "192.0.2.1:80" or "[2001:db8::1]:80". Throws std::runtime_error.
[[nodiscard]] endpoint parse_endpoint(const std::string& text);
// to_text() is its inverse.
[[nodiscard]] std::string to_text(const sockaddr_storage& address);
// parse_address() reads an address without a port.
[[nodiscard]] endpoint parse_address(const std::string& address, std::uint16_t port);

// now_ns() is monotonic, unix_now() is seconds since 1970.
[[nodiscard]] std::int64_t now_ns();
[[nodiscard]] double unix_now();

// stop_requested() is set by SIGINT and SIGTERM once catch_signals() was called.
void catch_signals();
[[nodiscard]] bool stop_requested();

}  // namespace sluice::flowgen
