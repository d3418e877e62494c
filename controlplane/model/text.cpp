// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/text.hpp"

#include <algorithm>

#include "controlplane/model/health_text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::model {
namespace {

nlohmann::ordered_json to_json(const service_limits& l) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (l.new_connections != 0) out["new-connections"] = l.new_connections;
  if (l.packets != 0) out["packets"] = l.packets;
  if (l.syn_flood != 0) out["syn-flood"] = l.syn_flood;
  if (l.per_source != source_limit{})
    out["per-source"] = {{"new-connections", l.per_source.new_connections},
                         {"ipv4-prefix", l.per_source.ipv4_prefix},
                         {"ipv6-prefix", l.per_source.ipv6_prefix}};
  return out;
}

void add_reports(nlohmann::ordered_json& out, const service& s) {
  if (!s.agent.off()) {
    auto& agent = out["agent"] = {{"port", s.agent.port}};
    if (!s.agent.send.empty()) agent["send"] = s.agent.send;
    agent["interval"] = to_string(s.agent.interval);
    agent["timeout"] = to_string(s.agent.timeout);
  }
  if (!s.heartbeat.off())
    out["heartbeat"] = {{"interval", to_string(s.heartbeat.interval)},
                        {"missing", s.heartbeat.missing}};
  if (s.weights != weight_steering{})
    out["weights"] = {{"smoothing", to_string(s.weights.smoothing)},
                      {"dead-band", s.weights.dead_band},
                      {"max-step", s.weights.max_step},
                      {"interval", to_string(s.weights.interval)}};
  if (s.quorum != quorum{})
    out["quorum"] = {{"percent", s.quorum.percent},
                     {"hysteresis", s.quorum.hysteresis},
                     {"hold", to_string(s.quorum.hold)}};
}

void add_set(nlohmann::ordered_json& out, const std::string& key, const prefix_set& set) {
  if (!set.prefixes.empty()) {
    auto& list = out[key] = nlohmann::ordered_json::array();
    for (const ip_prefix& p : set.prefixes) list.push_back(format_prefix(p));
  }
  if (!set.file.empty()) out[key + "-file"] = set.file;
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

// flow() writes a map or a scalar in YAML's flow style.
std::string flow(const nlohmann::ordered_json& v) {
  if (!v.is_object()) return scalar(v);
  std::string out = "{";
  for (const auto& [key, inner] : v.items()) {
    if (out.size() > 1) out += ", ";
    out += key + ": " + flow(inner);
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
    case scheduler_kind::ring_hash:
      return "ring-hash";
    case scheduler_kind::partitioned_hash:
      return "partitioned-hash";
    case scheduler_kind::source_hash:
      return "source-hash";
    case scheduler_kind::round_robin:
      return "round-robin";
    case scheduler_kind::weighted_round_robin:
      return "weighted-round-robin";
    case scheduler_kind::random:
      return "random";
    case scheduler_kind::weighted_random:
      return "weighted-random";
    case scheduler_kind::least_connections:
      return "least-connections";
    case scheduler_kind::weighted_least_connections:
      return "weighted-least-connections";
  }
  return "unknown";
}

std::string_view to_string(forward_mode m) noexcept {
  switch (m) {
    case forward_mode::dsr_l2:
      return "dsr-l2";
    case forward_mode::ipip:
      return "ipip";
    case forward_mode::gue:
      return "gue";
    case forward_mode::gre:
      return "gre";
    case forward_mode::dsr_dscp:
      return "dsr-dscp";
    case forward_mode::nat:
      return "nat";
    case forward_mode::full_nat:
      return "full-nat";
  }
  return "unknown";
}

std::string_view to_string(client_address c) noexcept {
  switch (c) {
    case client_address::none:
      return "none";
    case client_address::proxy_v2:
      return "proxy-v2";
    case client_address::toa:
      return "toa";
  }
  return "unknown";
}

std::string_view to_string(admin_state s) noexcept {
  switch (s) {
    case admin_state::enabled:
      return "enabled";
    case admin_state::drain:
      return "draining";
    case admin_state::up:
      return "up";
    case admin_state::down:
      return "down";
  }
  return "unknown";
}

std::string_view to_string(service_owner o) noexcept {
  switch (o) {
    case service_owner::operators:
      return "operators";
    case service_owner::kubernetes:
      return "kubernetes";
  }
  return "unknown";
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

std::string to_string(const quic_id& id) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < id.length && i < id.bytes.size(); ++i) {
    out += digits[id.bytes[i] >> 4];
    out += digits[id.bytes[i] & 0xf];
  }
  return out;
}

std::string to_string(const mss_clamp& m) {
  return m.automatic ? "auto" : m.bytes == 0 ? "off" : std::to_string(m.bytes);
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
  if (b.port != 0) out["port"] = b.port;
  if (b.dscp != 0) out["dscp"] = b.dscp;
  if (b.quic_id.length != 0) out["quic-id"] = to_string(b.quic_id);
  if (b.sorry) out["sorry"] = true;
  if (b.max_connections != 0) out["max-connections"] = b.max_connections;
  return out;
}

nlohmann::ordered_json options_json(const service& s) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (s.client != client_address::none) out["client-address"] = to_string(s.client);
  if (s.mss_clamp.bytes != 0)
    out["mss-clamp"] = s.mss_clamp.bytes;
  else if (s.mss_clamp.automatic)
    out["mss-clamp"] = "auto";
  if (!s.echo) out["echo"] = false;
  if (!s.persistence.off())
    out["persistence"] = {{"timeout", to_string(milliseconds{s.persistence.timeout})},
                          {"ipv4-prefix", s.persistence.ipv4_prefix},
                          {"ipv6-prefix", s.persistence.ipv6_prefix}};
  if (s.quic_id_length != 0) out["quic"] = {{"server-id-length", s.quic_id_length}};
  if (s.limits != service_limits{}) out["limits"] = to_json(s.limits);
  if (s.failover != failover{})
    out["failover"] = {{"tier-threshold", s.failover.tier_threshold},
                       {"panic-threshold", s.failover.panic_threshold},
                       {"failback", to_string(s.failover.failback)}};
  if (!s.slow_start.off())
    out["slow-start"] = {{"time", to_string(s.slow_start.time)}, {"steps", s.slow_start.steps}};
  if (!s.flap_damping.off())
    out["flap-damping"] = {{"falls", s.flap_damping.falls},
                           {"within", to_string(s.flap_damping.within)},
                           {"hold", to_string(s.flap_damping.hold)}};
  if (s.drain_deadline.count() != 0) out["drain-deadline"] = to_string(s.drain_deadline);
  add_reports(out, s);
  add_set(out, "allow", s.allow);
  add_set(out, "deny", s.deny);
  return out;
}

nlohmann::ordered_json to_json(const service& s) {
  nlohmann::ordered_json out;
  out["name"] = s.name;
  if (s.owner != service_owner::operators) out["owner"] = to_string(s.owner);
  out["address"] = format_ip(s.address);
  out["protocol"] = to_string(s.protocol);
  if (s.port.single())
    out["port"] = s.port.first;
  else
    out["port"] = to_string(s.port);
  out["scheduler"] = to_string(s.scheduler);
  if (sized(s.scheduler)) out["table-size"] = s.table_size;
  out["forward"] = to_string(s.forward);
  out.update(options_json(s));
  out["health"] = health_json(s.health);
  if (s.discover.given()) out["discover"] = to_json(s.discover);
  if (!s.discovered.empty()) {
    auto& list = out["discovered"] = nlohmann::ordered_json::array();
    for (const discovered_admin& d : s.discovered)
      list.push_back({{"address", format_ip(d.address)}, {"admin", to_string(d.admin)}});
  }
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
        for (const auto& item : v) out += "\n      - " + flow(item);
      } else {
        out += " " + flow(v);
      }
      out += '\n';
    }
  }
  return out;
}

}  // namespace sluice::model
