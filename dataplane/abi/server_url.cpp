// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/server_url.hpp"

#include <algorithm>

namespace sluice {
namespace {

constexpr std::size_t longest_url = 1024;

bool loopback_host(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host.starts_with("127.");
}

}  // namespace

tl::expected<std::string, std::string> parse_server_url(std::string_view text, bool with_token) {
  while (!text.empty() && text.back() == '/') text.remove_suffix(1);
  const bool https = text.starts_with("https://");
  std::string_view rest = text;
  rest.remove_prefix(https ? 8 : text.starts_with("http://") ? 7 : rest.size());
  const std::string_view at = rest.substr(0, rest.find('/'));
  const bool odd = std::any_of(rest.begin(), rest.end(), [](char c) {
    return c <= ' ' || c >= 0x7f || c == '@' || c == '?' || c == '#' || c == '"' || c == '\\';
  });
  if (at.empty() || odd || text.size() > longest_url)
    return tl::unexpected{
        std::string{"is not the URL of a server; expected one such as http://127.0.0.1:8500 or "
                    "https://10.0.0.1:6443, without a user or a query"}};
  const auto host = at.substr(0, at.front() == '[' ? at.find(']') + 1 : at.find(':'));
  if (!https && with_token && !loopback_host(host))
    return tl::unexpected{
        std::string{"would have the token of token-file sent in the clear; expected https://"}};
  return std::string{text};
}

}  // namespace sluice
