// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/kubernetes_reply.hpp"

#include <algorithm>
#include <optional>

#include "controlplane/discover/kubernetes_json.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::discover {
namespace {

using nlohmann::json;

// is() is a condition, which may be missing or null.
bool is(const json& conditions, const char* name, bool otherwise) {
  const json& value = member(conditions, name);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

constexpr std::size_t most_slice_ports = 1000;  // Kubernetes takes 100

endpoint_slice slice_of(const json& slice) {
  endpoint_slice out;
  const json& meta = member(slice, "metadata");
  const std::string service = text_of(member(member(meta, "labels"), "kubernetes.io/service-name"));
  if (!service.empty()) out.service = text_of(member(meta, "namespace")) + "/" + service;
  const std::string type = text_of(member(slice, "addressType"));
  out.ipv4 = type == "IPv4";
  if (!out.ipv4 && type != "IPv6") return out;
  if (const json& ports = member(slice, "ports"); ports.is_array())
    for (const json& p : ports) {
      const auto number = number_of(member(p, "port")).value_or(0);
      if (number <= 65535 && out.ports.size() < most_slice_ports)
        out.ports.push_back({text_of(member(p, "name")), static_cast<std::uint16_t>(number)});
    }
  const json& endpoints = member(slice, "endpoints");
  if (!endpoints.is_array()) return out;
  for (const json& e : endpoints) {
    const json& conditions = member(e, "conditions");
    const bool ready = is(conditions, "ready", true);
    const bool leaving = is(conditions, "terminating", false) && is(conditions, "serving", false);
    if (!ready && !leaving) continue;
    const json& addresses = member(e, "addresses");
    if (!addresses.is_array() || addresses.empty()) continue;
    // The first one is meant: all of them are the same endpoint.
    const auto address = parse_ip(text_of(addresses.front()));
    if (!address || address->is_v4() != out.ipv4) continue;
    found f;
    f.backend.address = *address;
    if (!ready) f.backend.admin = model::admin_state::drain;
    out.endpoints.push_back(f);
  }
  return out;
}

// key_of_slice() is empty where it has no name.
std::string key_of_slice(const json& slice) {
  const json& meta = member(slice, "metadata");
  const std::string name = text_of(member(meta, "name"));
  return name.empty() ? name : text_of(member(meta, "namespace")) + "/" + name;
}

// port_of() is a slice's port; 0: it is for all ports. Nothing: it has none of that name.
std::optional<std::uint16_t> port_of(const endpoint_slice& slice, const std::string& name) {
  if (slice.ports.empty()) return name.empty() ? std::optional<std::uint16_t>{0} : std::nullopt;
  for (const auto& p : slice.ports)
    if (name.empty() || p.name == name) return p.number;
  return std::nullopt;
}

}  // namespace

std::string version_of(const json& object) {
  return text_of(member(member(object, "metadata"), "resourceVersion"));
}

watch_line line_of(const json& event, std::string_view line) {
  const json& object = member(event, "object");
  const std::string type = text_of(member(event, "type"));
  watch_line out;
  if (type == "ERROR") {
    const auto code = number_of(member(object, "code")).value_or(0);
    out.event = code == 410 ? watch_event::expired : watch_event::error;
    out.text = std::to_string(code) + ": " + yaml::shown(text_of(member(object, "message")));
    return out;
  }
  out.version = version_of(object);
  const bool named = !text_of(member(member(object, "metadata"), "name")).empty();
  if (type == "BOOKMARK" && !out.version.empty())
    out.event = watch_event::bookmark;
  else if ((type == "ADDED" || type == "MODIFIED" || type == "DELETED") && !out.version.empty() &&
           named)
    out.event = type == "DELETED" ? watch_event::deleted : watch_event::changed;
  else
    out.text = "what it says is not understood: " + yaml::shown(line);
  return out;
}

tl::expected<slice_list, std::string> parse_slice_list(std::string_view body) {
  const json list = parse_json(body);
  const json& items = member(list, "items");
  slice_list out;
  out.version = version_of(list);
  out.next = text_of(member(member(list, "metadata"), "continue"));
  if (text_of(member(list, "kind")) != "EndpointSliceList" || out.version.empty())
    return tl::unexpected{std::string{"the answer is no EndpointSliceList"}};
  if (!items.is_array()) return out;  // null: none
  for (const json& slice : items) {
    const std::string key = key_of_slice(slice);
    if (key.empty()) return tl::unexpected{std::string{"an EndpointSlice has no name"}};
    out.all[key] = slice_of(slice);
  }
  return out;
}

watched parse_watched(std::string_view line) {
  const json event = parse_json(line);
  watched out;
  static_cast<watch_line&>(out) = line_of(event, line);
  out.slice = key_of_slice(member(event, "object"));
  if (out.event == watch_event::changed) out.one = slice_of(member(event, "object"));
  return out;
}

std::vector<found> found_in(const slices& all, const slice_wish& wish) {
  std::map<ip_address, found> by_address;
  for (const auto& [name, slice] : all) {
    const auto port = port_of(slice, wish.port_name);
    if (!port || !(slice.ipv4 ? wish.ipv4 : wish.ipv6)) continue;
    for (found f : slice.endpoints) {
      f.backend.port = *port;
      const auto [at, fresh] = by_address.emplace(f.backend.address, f);
      if (!fresh && at->second.backend.admin == model::admin_state::drain) at->second = f;
    }
  }
  std::vector<found> out;
  out.reserve(by_address.size());
  for (const auto& [address, f] : by_address) out.push_back(f);
  return out;
}

tl::expected<service_status, std::string> parse_service(std::string_view body) {
  const json service = parse_json(body);
  if (text_of(member(service, "kind")) != "Service")
    return tl::unexpected{std::string{"the answer is no Service"}};
  const json& spec = member(service, "spec");
  service_status out;
  out.balanced = text_of(member(spec, "type")) == "LoadBalancer";
  out.load_balancer_class = text_of(member(spec, "loadBalancerClass"));
  const json& ingress = member(member(member(service, "status"), "loadBalancer"), "ingress");
  if (ingress.is_array())
    for (const json& i : ingress)
      if (std::string ip = text_of(member(i, "ip")); !ip.empty())
        out.addresses.push_back(std::move(ip));
  return out;
}

std::string status_patch(const std::vector<std::string>& addresses) {
  json ingress = json::array();
  for (const std::string& a : addresses) ingress.push_back({{"ip", a}});
  return json{{"status", {{"loadBalancer", {{"ingress", std::move(ingress)}}}}}}.dump();
}

}  // namespace sluice::discover
