// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/read_discovery.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <string>

#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/server_url.hpp"

namespace sluice::config {
namespace {

using model::admin_state;
using model::discovery;
using model::discovery_kind;
using model::dns_records;
using yaml::assign;
using yaml::map_value;
using yaml::value;

constexpr std::chrono::milliseconds shortest_interval{100};
constexpr std::chrono::milliseconds longest_refresh{24 * 3'600'000};
constexpr std::uint64_t most_backends = 65535;
constexpr std::size_t longest_file_name = 1024;

// dns_name() tells whether a name can be asked for: labels of 1 to 63 bytes, at most 253.
bool dns_name(std::string_view name) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  if (name.empty() || name.size() > 253) return false;
  std::size_t label = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
      continue;
    }
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_';
    if (!fine || ++label > 63) return false;
  }
  return label != 0;
}

// read_pace() takes what all sources have that are asked again and again.
void read_pace(const map_value& m, discovery& out) {
  const auto least = m.find("min-interval");
  const auto most = m.find("max-interval");
  if (least) assign(out.min_interval, least->duration(shortest_interval, longest_refresh));
  if (most) assign(out.max_interval, most->duration(shortest_interval, longest_refresh));
  if (out.min_interval > out.max_interval)
    (most ? *most : *least)  // the defaults fit
        .error(
            "the longest interval is shorter than the shortest; expected max-interval of at "
            "least min-interval (" +
            model::to_string(out.min_interval) + ")");
  if (const auto weight = m.find("weight")) assign(out.weight, weight->integer(1, 65535));
  if (const auto tier = m.find("tier")) assign(out.tier, tier->integer(0, 255));
}

void read_dns(const map_value& m, discovery& out) {
  if (const auto name = m.require("name", "web.example.net"))
    if (auto text = name->text()) {
      if (!dns_name(*text))
        name->error(yaml::shown(*text) +
                    " is not a DNS name; expected one such as web.example.net");
      else
        out.name = std::move(*text);
    }
  if (const auto server = m.find("server"))
    if (const auto text = server->text()) {
      if (const auto with_port = parse_ip_port(*text))
        out.server = format_ip_port(*with_port);
      else if (const auto address = parse_ip(*text))
        out.server = format_ip_port({*address, 53});
      else
        server->error(yaml::shown(*text) +
                      " is not the address of a server; expected one such as 192.0.2.53, "
                      "\"192.0.2.53:5353\" or \"[2001:db8::53]:53\"");
    }
  if (const auto records = m.find("records"))
    assign(out.records, records->word<dns_records>({{"auto", dns_records::automatic},
                                                    {"a", dns_records::a},
                                                    {"aaaa", dns_records::aaaa},
                                                    {"both", dns_records::both},
                                                    {"srv", dns_records::srv}}));
}

void read_file_name(const value& v, std::string& out) {
  auto text = v.text();
  if (!text) return;
  if (text->front() != '/' || text->size() > longest_file_name || text->find('\0') != text->npos)
    v.error(yaml::shown(*text) +
            " is not an absolute path; expected one that begins with '/', of at most " +
            std::to_string(longest_file_name) + " bytes");
  else
    out = std::move(*text);
}

// plain_name() reads what becomes a part of a URL.
void read_plain_name(const value& v, std::string& out) {
  auto text = v.text();
  if (!text) return;
  const bool odd = std::any_of(text->begin(), text->end(), [](char c) {
    return c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '?' || c == '#' || c == '%';
  });
  if (odd || text->size() > 253)
    v.error(yaml::shown(*text) + " is not a name; expected at most 253 printable ASCII characters");
  else
    out = std::move(*text);
}

void read_url(const value& v, discovery& out) {
  const auto text = v.text();
  if (!text) return;
  if (auto url = parse_server_url(*text, !out.token_file.empty()))
    out.server = std::move(*url);
  else
    v.error(url.error());
}

void read_http(const map_value& m, discovery& out) {
  if (const auto token = m.find("token-file")) read_file_name(*token, out.token_file);
  if (const auto ca = m.find("ca")) read_file_name(*ca, out.ca);
  read_pace(m, out);
}

void read_consul(const map_value& m, discovery& out) {
  if (const auto name = m.require("name", "web")) read_plain_name(*name, out.name);
  read_http(m, out);
  if (const auto server = m.find("server"))
    read_url(*server, out);
  else
    out.server = "http://127.0.0.1:8500";
  if (const auto dc = m.find("datacenter")) read_plain_name(*dc, out.datacenter);
  if (const auto tag = m.find("tag")) read_plain_name(*tag, out.tag);
  if (const auto passing = m.find("passing")) assign(out.passing, passing->boolean());
}

void read_kubernetes(const map_value& m, discovery& out) {
  if (const auto name = m.require("name", "default/web"))
    if (auto text = name->text()) {
      const auto slash = std::min(text->find('/'), text->size());
      const std::string_view both{*text};
      if (!dns_name(both.substr(0, slash)) || slash == text->size() ||
          !dns_name(both.substr(slash + 1)))
        name->error(yaml::shown(*text) +
                    " is not a Service; expected its namespace and name, such as default/web");
      else
        out.name = std::move(*text);
    }
  read_http(m, out);
  if (const auto server = m.require("server", "https://10.0.0.1:6443")) read_url(*server, out);
  if (const auto port = m.find("port-name")) read_plain_name(*port, out.port_name);
  if (const auto one = m.find("load-balancer-class"))
    read_plain_name(*one, out.load_balancer_class);
}

void read_file(const map_value& m, discovery& out) {
  if (const auto path = m.require("path", "/etc/sluice/web.yaml")) read_file_name(*path, out.path);
}

void read_source(const value& v, const model::service& s, discovery& out) {
  if (v.is_word("none")) {
    out = {};
    return;
  }
  const auto m = v.map({"type", "name", "server", "records", "min-interval", "max-interval",
                        "weight", "tier", "path", "max-backends", "allow-empty", "ca", "token-file",
                        "datacenter", "tag", "passing", "port-name", "load-balancer-class"});
  if (!m) return;
  discovery next;
  const auto type = m->require("type", "dns");
  const auto kind = type ? type->word<discovery_kind>({{"dns", discovery_kind::dns},
                                                       {"file", discovery_kind::file},
                                                       {"consul", discovery_kind::consul},
                                                       {"kubernetes", discovery_kind::kubernetes}})
                         : std::nullopt;
  if (!kind) return;
  next.kind = *kind;
  const auto only_for = [&](std::initializer_list<std::string_view> keys, std::string_view which) {
    for (const std::string_view key : keys)
      if (const auto found = m->find(key))
        found->error("has no effect with this type; expected it only with type " +
                     std::string{which});
  };
  if (next.kind != discovery_kind::file) only_for({"path"}, "file");
  if (next.kind != discovery_kind::dns) only_for({"records"}, "dns");
  if (next.kind != discovery_kind::consul) only_for({"datacenter", "tag", "passing"}, "consul");
  if (next.kind != discovery_kind::kubernetes)
    only_for({"port-name", "load-balancer-class"}, "kubernetes");
  if (!next.by_http()) only_for({"ca", "token-file"}, "consul or kubernetes");
  switch (next.kind) {
    case discovery_kind::consul:
      read_consul(*m, next);
      break;
    case discovery_kind::kubernetes:
      read_kubernetes(*m, next);
      break;
    case discovery_kind::file:
      only_for({"name", "server", "min-interval", "max-interval", "weight", "tier"},
               "dns, consul or kubernetes");
      read_file(*m, next);
      break;
    case discovery_kind::dns:
    case discovery_kind::none:
      read_dns(*m, next);
      read_pace(*m, next);
      break;
  }
  if (next.kind != discovery_kind::file && s.forward == model::forward_mode::dsr_dscp)
    type->error(std::string{model::to_string(next.kind)} +
                " has no DSCP for the backends, which forward: dsr-dscp needs; expected file");
  if (const auto n = m->find("max-backends"))
    assign(next.max_backends, n->integer(1, most_backends));
  if (const auto n = m->find("allow-empty")) assign(next.allow_empty, n->boolean());
  out = std::move(next);
}

void read_admins(const value& v, std::vector<model::discovered_admin>& out) {
  const auto items = v.items();
  if (!items) return;
  out.clear();
  std::set<ip_address> seen;
  for (const value& item : *items) {
    const auto m = item.map({"address", "admin"});
    if (!m) continue;
    const auto address = m->require("address", "10.0.1.11");
    const auto admin = m->require("admin", "draining");
    const auto text = address ? address->text() : std::nullopt;
    const auto state = admin ? admin->word<admin_state>({{"draining", admin_state::drain},
                                                         {"up", admin_state::up},
                                                         {"down", admin_state::down}})
                             : std::nullopt;
    if (!text || !state) continue;
    const auto read = parse_ip(*text);
    if (!read)
      address->error(read.error() + "; expected one such as 192.0.2.1 or \"2001:db8::1\"");
    else if (!seen.insert(*read).second)
      address->error(format_ip(*read) + " is in this list already; expected each address once");
    else
      out.push_back({*read, *state});
  }
}

}  // namespace

void read_discovery(const map_value& m, model::service& out) {
  if (const auto v = m.find("discover")) read_source(*v, out, out.discover);
  if (const auto v = m.find("discovered")) read_admins(*v, out.discovered);
}

}  // namespace sluice::config
