// SPDX-License-Identifier: Apache-2.0
#include "controlplane/model/text.hpp"

namespace sluice::model {

std::string_view to_string(discovery_kind k) noexcept {
  switch (k) {
    case discovery_kind::none:
      return "none";
    case discovery_kind::dns:
      return "dns";
    case discovery_kind::file:
      return "file";
    case discovery_kind::consul:
      return "consul";
    case discovery_kind::kubernetes:
      return "kubernetes";
  }
  return "unknown";
}

std::string_view to_string(dns_records r) noexcept {
  switch (r) {
    case dns_records::automatic:
      return "auto";
    case dns_records::a:
      return "a";
    case dns_records::aaaa:
      return "aaaa";
    case dns_records::both:
      return "both";
    case dns_records::srv:
      return "srv";
  }
  return "unknown";
}

std::string_view to_string(backend_source s) noexcept {
  switch (s) {
    case backend_source::configured:
      return "configured";
    case backend_source::discovered:
      return "discovered";
    case backend_source::vanished:
      return "vanished";
  }
  return "unknown";
}

nlohmann::ordered_json to_json(const discovery& d) {
  const discovery fresh;
  nlohmann::ordered_json out;
  out["type"] = to_string(d.kind);
  if (d.kind == discovery_kind::dns || d.by_http()) {
    out["name"] = d.name;
    if (!d.server.empty()) out["server"] = d.server;
    if (d.kind == discovery_kind::dns) out["records"] = to_string(d.records);
    const auto given = [&out](const char* key, const std::string& text) {
      if (!text.empty()) out[key] = text;
    };
    given("ca", d.ca);
    given("token-file", d.token_file);
    given("datacenter", d.datacenter);
    given("tag", d.tag);
    if (d.passing) out["passing"] = true;
    given("port-name", d.port_name);
    given("load-balancer-class", d.load_balancer_class);
    out["min-interval"] = to_string(d.min_interval);
    out["max-interval"] = to_string(d.max_interval);
    if (d.weight != fresh.weight) out["weight"] = d.weight;
    if (d.tier != fresh.tier) out["tier"] = d.tier;
  }
  if (d.kind == discovery_kind::file) out["path"] = d.path;
  if (d.max_backends != fresh.max_backends) out["max-backends"] = d.max_backends;
  if (d.allow_empty) out["allow-empty"] = true;
  return out;
}

}  // namespace sluice::model
