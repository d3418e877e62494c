// SPDX-License-Identifier: Apache-2.0
#include "controlplane/lists/prefix_file.hpp"

#include <charconv>
#include <optional>

#include "dataplane/abi/whole_file.hpp"

namespace sluice::lists {
namespace {

std::string_view trimmed(std::string_view s) {
  constexpr std::string_view spaces = " \t\r";
  const auto first = s.find_first_not_of(spaces);
  if (first == s.npos) return {};
  return s.substr(first, s.find_last_not_of(spaces) - first + 1);
}

// quick_prefix4() reads the plain forms of IPv4 (most lines of a long list); nothing: let
// parse_prefix() say what it is.
std::optional<ip_prefix> quick_prefix4(std::string_view s) {
  const char* at = s.data();
  const char* const end = at + s.size();
  std::array<std::uint8_t, 4> bytes{};
  const auto number = [&](unsigned most) -> std::optional<unsigned> {
    unsigned n = 0;
    const char* const begin = at;
    while (at != end && *at >= '0' && *at <= '9' && at - begin < 3)
      n = n * 10 + static_cast<unsigned>(*at++ - '0');
    if (at == begin || n > most || (*begin == '0' && at - begin > 1)) return std::nullopt;
    return n;
  };
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) return std::nullopt;
    const auto n = number(255);
    if (!n) return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(*n);
  }
  ip_prefix out{ip_address::v4(bytes), 32};
  if (at == end) return out;
  if (*at++ != '/') return std::nullopt;
  const auto length = number(32);
  if (!length || at != end) return std::nullopt;
  out.length = static_cast<std::uint8_t>(*length);
  const std::uint32_t hosts = *length == 32 ? 0 : 0xffffffffu >> *length;
  if ((out.address.v4_raw().host() & hosts) != 0) return std::nullopt;
  return out;
}

}  // namespace

result<std::vector<ip_prefix>> parse_prefixes(std::string_view text, std::string_view file_name) {
  yaml::error_list errors{file_name};
  std::vector<ip_prefix> out;
  unsigned line = 0;
  while (!text.empty()) {
    ++line;
    const auto end = text.find('\n');
    std::string_view rest = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    rest = trimmed(rest.substr(0, rest.find('#')));
    if (rest.empty()) continue;
    if (const auto quick = quick_prefix4(rest)) {
      out.push_back(*quick);
    } else if (const auto prefix = parse_prefix(rest)) {
      out.push_back(*prefix);
    } else {
      errors.add(line, {},
                 prefix.error() +
                     "; expected one prefix in a line, such as 192.0.2.0/24 or "
                     "2001:db8::/32");
    }
    if (out.size() > most_prefixes) {
      errors.add(line, {},
                 "more than " + std::to_string(most_prefixes) +
                     " prefixes; expected at most so many in one list");
      break;
    }
  }
  if (!errors.empty()) return tl::unexpected{errors.take()};
  return out;
}

result<shared_ranges> load(const model::prefix_set& set) {
  if (!set.given()) return shared_ranges{};
  std::vector<ip_prefix> prefixes;
  if (!set.file.empty()) {
    // A FIFO must not hold up the control plane.
    const auto text = read_whole_file(set.file, most_bytes, file_kinds::regular);
    if (!text)
      return tl::unexpected{std::vector{
          config_error{set.file, 0, {}, text.error() + "; expected a file of prefixes"}}};
    auto parsed = parse_prefixes(*text, set.file);
    if (!parsed) return tl::unexpected{std::move(parsed.error())};
    prefixes = std::move(*parsed);
  }
  prefixes.insert(prefixes.end(), set.prefixes.begin(), set.prefixes.end());
  if (prefixes.size() > most_prefixes)
    return tl::unexpected{
        std::vector{config_error{set.file,
                                 0,
                                 {},
                                 std::to_string(prefixes.size()) + " prefixes; expected at most " +
                                     std::to_string(most_prefixes) + " in one list"}}};
  return std::make_shared<const range_set>(prefixes);
}

}  // namespace sluice::lists
