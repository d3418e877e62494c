// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/text.hpp"

#include <algorithm>

#include "dataplane/abi/address_text.hpp"

namespace sluice::model {
namespace {

std::string expect_text(const health_check& h) {
  const std::string first = std::to_string(h.expect_first);
  return h.expect_first == h.expect_last ? first : first + "-" + std::to_string(h.expect_last);
}

nlohmann::ordered_json to_json(const health_check& h) {
  nlohmann::ordered_json out;
  out["type"] = to_string(h.kind);
  if (h.kind == health_kind::none) return out;
  if (h.kind == health_kind::http) {
    out["path"] = h.path;
    if (!h.host.empty()) out["host"] = h.host;
    out["expect"] = expect_text(h);
  }
  if (h.port != 0) out["port"] = h.port;
  out["interval"] = to_string(h.interval);
  out["timeout"] = to_string(h.timeout);
  out["rise"] = h.rise;
  out["fall"] = h.fall;
  return out;
}

// scalar() writes a JSON scalar so that YAML reads the same: numbers plain, text plain
// where it can only be text, otherwise in JSON's quotes (which YAML shares).
std::string scalar(const nlohmann::ordered_json& v) {
  if (!v.is_string()) return v.dump();
  const auto& text = v.get_ref<const std::string&>();
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto plain = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-' || c == '/';
  };
  constexpr std::string_view words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};
  const bool safe = !text.empty() && (letter(text[0]) || text[0] == '/') &&
                    std::all_of(text.begin(), text.end(), plain) &&
                    std::find(std::begin(words), std::end(words), text) == std::end(words);
  const bool dotted = !text.empty() && std::count(text.begin(), text.end(), '.') == 3 &&
                      text.find_first_not_of("0123456789.") == text.npos;
  return safe || dotted ? text : v.dump();
}

std::string flow_map(const nlohmann::ordered_json& map) {
  std::string out = "{";
  for (const auto& [key, v] : map.items()) {
    if (out.size() > 1) out += ", ";
    out += key + ": " + scalar(v);
  }
  return out + "}";
}

}  // namespace

std::string_view to_string(protocol p) noexcept {
  return p == protocol::tcp ? "tcp" : "udp";
}

std::string_view to_string(scheduler_kind s) noexcept {
  switch (s) {
    case scheduler_kind::maglev:
      return "maglev";
  }
  return "unknown";
}

std::string_view to_string(forward_mode m) noexcept {
  switch (m) {
    case forward_mode::dsr_l2:
      return "dsr-l2";
    case forward_mode::ipip:
      return "ipip";
  }
  return "unknown";
}

std::string_view to_string(health_kind k) noexcept {
  switch (k) {
    case health_kind::none:
      return "none";
    case health_kind::tcp:
      return "tcp";
    case health_kind::http:
      return "http";
  }
  return "unknown";
}

std::string_view to_string(admin_state s) noexcept {
  return s == admin_state::enabled ? "enabled" : "draining";
}

std::string to_string(const port_range& r) {
  if (r.any()) return "any";
  const std::string first = std::to_string(r.first);
  return r.single() ? first : first + "-" + std::to_string(r.last);
}

std::string to_string(milliseconds d) {
  const auto n = d.count();
  if (n != 0 && n % 3'600'000 == 0) return std::to_string(n / 3'600'000) + "h";
  if (n != 0 && n % 60'000 == 0) return std::to_string(n / 60'000) + "m";
  if (n != 0 && n % 1000 == 0) return std::to_string(n / 1000) + "s";
  return std::to_string(n) + "ms";
}

std::string identity(const service& s) {
  const std::string host = format_ip(s.address);
  std::string out = s.address.is_v4() ? host : "[" + host + "]";
  return out + ":" + to_string(s.port) + "/" + std::string{to_string(s.protocol)};
}

nlohmann::ordered_json to_json(const backend& b) {
  nlohmann::ordered_json out;
  out["address"] = format_ip(b.address);
  out["weight"] = b.weight;
  if (b.tier != 0) out["tier"] = b.tier;
  if (b.admin != admin_state::enabled) out["admin"] = to_string(b.admin);
  return out;
}

nlohmann::ordered_json to_json(const service& s) {
  nlohmann::ordered_json out;
  out["name"] = s.name;
  out["address"] = format_ip(s.address);
  out["protocol"] = to_string(s.protocol);
  if (s.port.single())
    out["port"] = s.port.first;
  else
    out["port"] = to_string(s.port);
  out["scheduler"] = to_string(s.scheduler);
  out["table-size"] = s.table_size;
  out["forward"] = to_string(s.forward);
  out["health"] = to_json(s.health);
  out["backends"] = nlohmann::ordered_json::array();
  for (const backend& b : s.backends) out["backends"].push_back(to_json(b));
  return out;
}

nlohmann::ordered_json to_json(const desired_state& s) {
  nlohmann::ordered_json out;
  out["services"] = nlohmann::ordered_json::array();
  for (const service& one : s.services) out["services"].push_back(to_json(one));
  return out;
}

std::string to_yaml(const desired_state& s) {
  if (s.services.empty()) return "services: []\n";
  std::string out = "services:\n";
  for (const service& one : s.services) {
    std::string_view lead = "  - ";
    const auto json = to_json(one);
    for (const auto& [key, v] : json.items()) {
      out += std::string{lead} + key + ":";
      lead = "    ";
      if (v.is_array()) {
        if (v.empty()) out += " []";
        for (const auto& item : v) out += "\n      - " + flow_map(item);
      } else {
        out += " " + (v.is_object() ? flow_map(v) : scalar(v));
      }
      out += '\n';
    }
  }
  return out;
}

}  // namespace sluice::model
