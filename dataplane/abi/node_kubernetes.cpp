// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/node_kubernetes.hpp"

#include <algorithm>
#include <climits>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/node_path.hpp"
#include "dataplane/abi/server_url.hpp"

namespace sluice {
namespace {

using yaml::value;

// last_of() is the last address of a prefix.
ip_address last_of(const ip_prefix& p) {
  ip_address out = p.address;
  const unsigned skipped = p.address.is_v4() ? 96 : 0;
  for (unsigned bit = skipped + p.length; bit < 128; ++bit)
    out.bytes[bit / 8] = static_cast<std::uint8_t>(out.bytes[bit / 8] | (0x80u >> (bit % 8)));
  return out;
}

std::optional<ip_range> parse_range(std::string_view text) {
  if (const auto dash = text.find('-'); dash != text.npos) {
    const auto first = parse_ip(text.substr(0, dash));
    const auto last = parse_ip(text.substr(dash + 1));
    if (!first || !last || first->is_v4() != last->is_v4() || *last < *first) return std::nullopt;
    return ip_range{*first, *last};
  }
  const auto prefix = parse_prefix(text);
  if (!prefix) return std::nullopt;
  return ip_range{prefix->address, last_of(*prefix)};
}

void read_ranges(const value& v, std::vector<ip_range>& out) {
  const auto items = v.items();
  if (!items) return;
  for (const value& item : *items) {
    const auto text = item.text();
    if (!text) continue;
    const auto range = parse_range(*text);
    if (!range) {
      item.error(yaml::shown(*text) +
                 " is no range of addresses; expected one such as 198.51.100.0/24, "
                 "\"2001:db8::/64\" or 198.51.100.10-198.51.100.20");
      continue;
    }
    const auto overlaps = [&](const ip_range& other) {
      return other.holds(range->first) || range->holds(other.first);
    };
    if (std::any_of(out.begin(), out.end(), overlaps))
      item.error(yaml::shown(*text) + " overlaps another range here; expected each address once");
    else
      out.push_back(*range);
  }
}

// A DNS label, as namespaces are.
bool label(std::string_view text) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !text.empty() && text.size() <= 63 && plain(text.front()) && plain(text.back()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return plain(c) || c == '-'; });
}

void read_namespaces(const value& v, std::vector<std::string>& out) {
  if (v.is_word("all")) return;
  const auto items = v.items();
  if (!items) return;
  if (items->empty()) v.error("the list is empty; expected namespaces, or all");
  std::set<std::string> seen;
  for (const value& item : *items) {
    auto text = item.text();
    if (!text) continue;
    if (!label(*text))
      item.error(yaml::shown(*text) + " is not the name of a namespace; expected one such as shop");
    else if (!seen.insert(*text).second)
      item.error(yaml::shown(*text) + " is in this list already");
    else
      out.push_back(std::move(*text));
  }
}

// A loadBalancerClass: a name, perhaps behind a DNS name and a '/'.
bool class_ok(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return !text.empty() && text.size() <= 316 && text.front() != '/' && text.back() != '/' &&
         std::count(text.begin(), text.end(), '/') <= 1 &&
         std::all_of(text.begin(), text.end(), plain);
}

}  // namespace

std::optional<kubernetes_config> read_kubernetes(const value& v) {
  const auto m = v.map(
      {"server", "ca", "token-file", "class", "namespaces", "pool", "on-request", "service-file"});
  if (!m) return std::nullopt;
  kubernetes_config out;
  out.line = v.line();
  const auto path = [&](std::string_view key, std::string& to) {
    if (const auto found = m->find(key))
      if (auto text = absolute_path(*found, PATH_MAX - 32)) to = std::move(*text);
  };
  path("ca", out.ca);
  path("token-file", out.token_file);
  path("service-file", out.service_file);
  if (const auto server = m->require("server", "https://10.0.0.1:6443"))
    if (const auto text = server->text()) {
      if (auto url = parse_server_url(*text, !out.token_file.empty()))
        out.server = std::move(*url);
      else
        server->error(url.error());
    }
  if (const auto one = m->find("class"))
    if (auto text = one->text()) {
      if (!class_ok(*text))
        one->error(yaml::shown(*text) +
                   " is not a loadBalancerClass; expected one such as sluice.io/sluice");
      out.load_balancer_class = std::move(*text);
    }
  if (const auto some = m->find("namespaces")) read_namespaces(*some, out.namespaces);
  if (const auto pool = m->require("pool", "[198.51.100.0/24]")) read_ranges(*pool, out.pool);
  if (const auto more = m->find("on-request")) read_ranges(*more, out.on_request);
  return out;
}

}  // namespace sluice
