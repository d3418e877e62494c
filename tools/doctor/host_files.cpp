// SPDX-License-Identifier: Apache-2.0
#include "tools/doctor/host_files.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "dataplane/abi/address_text.hpp"

namespace sluice::doctor {

namespace {

constexpr std::size_t longest_file = 16u << 20;
constexpr unsigned most_cpus = 8192;

std::optional<unsigned> cpu_number(std::string_view text) {
  unsigned value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc{} || end != text.data() + text.size() || value > most_cpus)
    return std::nullopt;
  return value;
}

}  // namespace

host_files::host_files(std::string root) : root_{std::move(root)} {
  while (!root_.empty() && root_.back() == '/') root_.pop_back();
}

std::optional<std::string> host_files::text(const std::string& path) const {
  std::ifstream in{root_ + path, std::ios::binary};
  if (!in) return std::nullopt;
  std::string out;
  for (char c; out.size() < longest_file && in.get(c);) out += c;
  if (in.bad()) return std::nullopt;
  while (!out.empty() && (out.back() == '\n' || out.back() == ' ' || out.back() == '\0'))
    out.pop_back();
  return out;
}

std::optional<long> host_files::number(const std::string& path) const {
  const auto all = text(path);
  if (!all) return std::nullopt;
  long value = 0;
  const auto [end, wrong] = std::from_chars(all->data(), all->data() + all->size(), value);
  if (wrong != std::errc{} || end != all->data() + all->size()) return std::nullopt;
  return value;
}

std::vector<std::string> host_files::names(const std::string& path) const {
  std::vector<std::string> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it{root_ + path, error}, end; !error && it != end;
       it.increment(error))
    out.push_back(it->path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

bool host_files::exists(const std::string& path) const {
  std::error_code error;
  return std::filesystem::exists(root_ + path, error);
}

std::optional<std::string> host_files::link(const std::string& path) const {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(root_ + path, error);
  if (error) return std::nullopt;
  return target.filename().string();
}

std::set<unsigned> host_files::cpus(const std::string& path) const {
  return parse_cpus(text(path).value_or(""));
}

std::set<ip_address> host_files::local_addresses() const {
  std::set<ip_address> out;
  // "|-- 192.0.2.1" and below it "/32 host LOCAL".
  std::istringstream trie{text("/proc/net/fib_trie").value_or("")};
  std::string address;
  for (std::string line; std::getline(trie, line);) {
    if (const std::size_t at = line.find("|-- "); at != std::string::npos)
      address = line.substr(at + 4);
    else if (line.find("host LOCAL") != std::string::npos)
      if (const auto ip = parse_ip(address)) out.insert(*ip);
  }
  // 32 hexadecimal digits, then what is of no interest here.
  std::istringstream inet6{text("/proc/net/if_inet6").value_or("")};
  for (std::string line; std::getline(inet6, line);) {
    if (line.size() < 32) continue;
    std::string with_colons;
    for (std::size_t i = 0; i < 32; i += 4) with_colons += (i == 0 ? "" : ":") + line.substr(i, 4);
    if (const auto ip = parse_ip(with_colons)) out.insert(*ip);
  }
  return out;
}

std::set<unsigned> parse_cpus(std::string_view text) {
  std::set<unsigned> out;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    const std::size_t dash = std::min(part.find('-'), part.size());
    const auto first = cpu_number(part.substr(0, dash));
    const auto last = dash < part.size() ? cpu_number(part.substr(dash + 1)) : first;
    if (first && last)
      for (unsigned cpu = *first; cpu <= *last; ++cpu) out.insert(cpu);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

std::string format_cpus(const std::set<unsigned>& cpus) {
  std::string out;
  for (auto it = cpus.begin(); it != cpus.end();) {
    const unsigned first = *it;
    unsigned last = first;
    for (++it; it != cpus.end() && *it == last + 1; ++it) last = *it;
    if (!out.empty()) out += ',';
    out += std::to_string(first);
    if (last != first) out += '-' + std::to_string(last);
  }
  return out;
}

}  // namespace sluice::doctor
