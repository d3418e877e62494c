// SPDX-License-Identifier: Apache-2.0
// URLs of servers that are asked over HTTP. Any thread.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace sluice {

// parse_server_url() takes "http://HOST[:PORT]" or "https://...", perhaps with a path, and returns
// it without a '/' at its end. A token goes over http to this host itself only. The error follows
// the name of what was read; it does not repeat the URL, which may hold a secret.
[[nodiscard]] tl::expected<std::string, std::string> parse_server_url(std::string_view text,
                                                                      bool with_token);

}  // namespace sluice
