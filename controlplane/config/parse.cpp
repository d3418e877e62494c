// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "controlplane/config/check.hpp"
#include "controlplane/config/config.hpp"
#include "controlplane/config/read_discovery.hpp"
#include "controlplane/config/read_health.hpp"
#include "controlplane/config/read_options.hpp"
#include "controlplane/config/read_reports.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::config {
namespace {

using model::backend;
using model::service;
using yaml::assign;
using yaml::map_value;
using yaml::value;

constexpr std::uint32_t smallest_table = 251;
constexpr std::uint32_t largest_table = 16'777'213;

const std::initializer_list<std::pair<std::string_view, model::scheduler_kind>> scheduler_words{
    {"maglev", model::scheduler_kind::maglev},
    {"ring-hash", model::scheduler_kind::ring_hash},
    {"partitioned-hash", model::scheduler_kind::partitioned_hash},
    {"source-hash", model::scheduler_kind::source_hash},
    {"round-robin", model::scheduler_kind::round_robin},
    {"weighted-round-robin", model::scheduler_kind::weighted_round_robin},
    {"random", model::scheduler_kind::random},
    {"weighted-random", model::scheduler_kind::weighted_random},
    {"least-connections", model::scheduler_kind::least_connections},
    {"weighted-least-connections", model::scheduler_kind::weighted_least_connections}};

const std::initializer_list<std::pair<std::string_view, model::forward_mode>> forward_words{
    {"ipip", model::forward_mode::ipip},         {"gue", model::forward_mode::gue},
    {"gre", model::forward_mode::gre},           {"dsr-l2", model::forward_mode::dsr_l2},
    {"dsr-dscp", model::forward_mode::dsr_dscp}, {"nat", model::forward_mode::nat},
    {"full-nat", model::forward_mode::full_nat}};

std::optional<model::port_range> read_ports(const value& v) {
  if (v.is_word("any")) return model::port_range{0, 65535};
  const auto span =
      read_span(v, 1, 65535, "a port from 1 to 65535, a range such as \"8000-8100\", or any");
  if (!span) return std::nullopt;
  return model::port_range{span->first, span->second};
}

void read_backend(const value& v, const backend* base, backend& out, backend_origin& origin) {
  origin.path = v.path();
  origin.line = v.line();
  const auto m = v.map({"address", "weight", "tier", "admin", "port", "dscp", "quic-id", "sorry",
                        "max-connections"});
  if (!m) return;
  if (base) out = *base;
  const auto address = base ? m->find("address") : m->require("address", "10.0.1.11");
  if (address) {
    origin.line = address->line();
    if (const auto read = read_address(*address)) {
      if (base && *read != base->address)
        address->error("cannot be changed (it is " + format_ip(base->address) +
                       "); add another backend instead");
      out.address = *read;
      origin.address_ok = true;
    }
  } else {
    origin.address_ok = base != nullptr;
  }
  if (const auto weight = m->find("weight")) assign(out.weight, weight->integer(0, 65535));
  if (const auto tier = m->find("tier")) assign(out.tier, tier->integer(0, 255));
  if (const auto admin = m->find("admin"))
    assign(out.admin, admin->word<model::admin_state>({{"enabled", model::admin_state::enabled},
                                                       {"draining", model::admin_state::drain},
                                                       {"up", model::admin_state::up},
                                                       {"down", model::admin_state::down}}));
  if (const auto sorry = m->find("sorry")) assign(out.sorry, sorry->boolean());
  if (const auto most = m->find("max-connections")) {
    if (most->is_word("none"))
      out.max_connections = 0;
    else
      assign(out.max_connections, most->integer(1, 4'000'000'000, "none"));
  }
  read_backend_options(*m, out);
}

void read_name(const value& v, const service* base, service& out, service_origin& origin) {
  origin.name = v.line();
  origin.name_ok = false;
  const auto text = v.text();
  if (!text) return;
  if (!valid_service_name(*text))
    v.error(yaml::shown(*text) +
            " is not a service name; expected 1 to 48 of a-z, 0-9, '.', '_', '-', beginning with "
            "a letter or digit");
  else if (base && *text != base->name)
    v.error("cannot be changed (it is '" + base->name + "'); add another service instead");
  else
    origin.name_ok = true;
  out.name = *text;
}

void read_backends(const value& v, service& out, service_origin& origin) {
  const auto items = v.items();
  if (!items) return;
  out.backends.clear();
  out.backends.reserve(items->size());
  origin.backends.reserve(items->size());
  for (const value& item : *items)
    read_backend(item, nullptr, out.backends.emplace_back(), origin.backends.emplace_back());
}

void read_service(const value& v, const service* base, service& out, service_origin& origin) {
  origin.path = v.path();
  origin.line = origin.name = origin.address = origin.port = v.line();
  origin.forward = origin.table_size = origin.health = v.line();
  origin.name_ok = origin.address_ok = origin.port_ok = base != nullptr;
  const auto m = v.map(
      {"name",    "address",        "protocol",   "port",         "scheduler",      "table-size",
       "forward", "client-address", "mss-clamp",  "echo",         "persistence",    "quic",
       "limits",  "failover",       "slow-start", "flap-damping", "drain-deadline", "allow",
       "deny",    "allow-file",     "deny-file",  "health",       "discover",       "discovered",
       "agent",   "heartbeat",      "weights",    "quorum",       "backends",       "owner"});
  if (!m) return;
  if (base) out = *base;
  if (const auto owner = m->find("owner"))
    assign(out.owner,
           owner->word<model::service_owner>({{"operators", model::service_owner::operators},
                                              {"kubernetes", model::service_owner::kubernetes}}));
  // With a base nothing is missing.
  const auto need = [&](std::string_view key, std::string_view example) {
    return base ? m->find(key) : m->require(key, example);
  };
  if (const auto name = need("name", "web")) read_name(*name, base, out, origin);
  if (const auto address = need("address", "198.51.100.10")) {
    origin.address = address->line();
    const auto read = read_address(*address);
    origin.address_ok = read.has_value();
    if (read) out.address = *read;
  }
  if (const auto protocol = m->find("protocol"))
    assign(out.protocol, protocol->word<model::protocol>(
                             {{"tcp", model::protocol::tcp}, {"udp", model::protocol::udp}}));
  if (const auto port = need("port", "443")) {
    origin.port = port->line();
    const auto read = read_ports(*port);
    origin.port_ok = read.has_value();
    if (read) out.port = *read;
  }
  if (const auto scheduler = m->find("scheduler"))
    assign(out.scheduler, scheduler->word<model::scheduler_kind>(scheduler_words));
  if (const auto size = m->find("table-size")) {
    origin.table_size = size->line();
    if (!model::sized(out.scheduler))
      size->error("has no effect with scheduler: " + std::string{model::to_string(out.scheduler)} +
                  "; expected it only with the others");
    else
      assign(out.table_size, size->integer(smallest_table, largest_table));
  }
  if (!model::sized(out.scheduler)) out.table_size = service{}.table_size;
  if (const auto forward = m->find("forward")) {
    origin.forward = forward->line();
    assign(out.forward, forward->word<model::forward_mode>(forward_words));
  }
  read_options(*m, out);
  read_reports(*m, out);
  if (const auto health = m->find("health")) {
    origin.health = health->line();
    read_health(*health, base ? &base->health : nullptr, out.health);
  }
  read_discovery(*m, out);
  if (const auto backends = m->find("backends")) read_backends(*backends, out, origin);
}

tl::unexpected<std::vector<config_error>> refused(std::vector<config_error> errors) {
  return tl::unexpected{std::move(errors)};
}

}  // namespace

result<model::desired_state> parse_services(std::string_view text, std::string_view file_name,
                                            const context& node) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return refused({document.error()});
  yaml::error_list errors{file_name};
  model::desired_state out;
  const auto top = document->root(errors).map({"services"});
  const auto list =
      top ? top->require("services", "services: [{name: web, ...}], or services: [] for none")
          : std::nullopt;
  if (const auto items = list ? list->items() : std::nullopt) {
    std::vector<service_origin> origins(items->size());
    out.services.resize(items->size());
    for (std::size_t i = 0; i < items->size(); ++i)
      read_service((*items)[i], nullptr, out.services[i], origins[i]);
    check_services(out.services, origins, list->line(), node, errors);
  }
  if (!errors.empty()) return refused(errors.take());
  normalise(out);
  return out;
}

result<model::service> parse_service(std::string_view text, std::string_view file_name,
                                     const context& node, const model::service* base) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return refused({document.error()});
  yaml::error_list errors{file_name};
  service out;
  service_origin origin;
  read_service(document->root(errors), base, out, origin);
  check_service(out, &origin, node, errors);
  if (!errors.empty()) return refused(errors.take());
  normalise(out);
  return out;
}

result<model::backend> parse_backend(std::string_view text, std::string_view file_name,
                                     const model::backend* base) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return refused({document.error()});
  yaml::error_list errors{file_name};
  backend out;
  backend_origin origin;
  read_backend(document->root(errors), base, out, origin);
  if (!errors.empty()) return refused(errors.take());
  return out;
}

result<std::vector<model::backend>> parse_backend_list(std::string_view text,
                                                       std::string_view file_name) {
  const auto document = yaml::document::parse(text, file_name);
  if (!document) return refused({document.error()});
  yaml::error_list errors{file_name};
  service out;
  service_origin origin;
  if (const auto top = document->root(errors).map({"backends"}))
    if (const auto list =
            top->require("backends", "backends: [{address: 10.0.1.11}], or [] for none"))
      read_backends(*list, out, origin);
  if (!errors.empty()) return refused(errors.take());
  return std::move(out.backends);
}

}  // namespace sluice::config
