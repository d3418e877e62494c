// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>

#include "controlplane/config/check.hpp"
#include "controlplane/config/config.hpp"
#include "controlplane/config/read_discovery.hpp"
#include "controlplane/config/read_options.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::config {
namespace {

using model::backend;
using model::health_check;
using model::health_kind;
using model::health_via;
using model::milliseconds;
using model::service;
using yaml::assign;
using yaml::map_value;
using yaml::value;

constexpr std::uint32_t smallest_table = 251;
constexpr std::uint32_t largest_table = 16'777'213;
constexpr milliseconds longest_interval{3'600'000};

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

std::optional<ip_address> read_address(const value& v) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto address = parse_ip(*text);
  if (!address) {
    v.error(address.error() + "; expected one such as 192.0.2.1 or \"2001:db8::1\"");
    return std::nullopt;
  }
  return *address;
}

// read_span() reads "8000-8100" or one number, within the bounds.
std::optional<std::pair<std::uint16_t, std::uint16_t>> read_span(const value& v, unsigned min,
                                                                 unsigned max,
                                                                 std::string_view expected) {
  const auto text = v.text();
  if (!text) return std::nullopt;
  const auto wrong = [&](std::string_view why) {
    v.error(yaml::shown(*text) + " " + std::string{why} + "; expected " + std::string{expected});
    return std::nullopt;
  };
  const char* const end = text->data() + text->size();
  unsigned long first = 0;
  auto r = std::from_chars(text->data(), end, first);
  if (r.ec == std::errc::invalid_argument) return wrong("is not a number or range");
  unsigned long last = first;
  bool huge = r.ec != std::errc{};
  if (r.ptr != end) {
    if (*r.ptr != '-') return wrong("is not a number or range");
    r = std::from_chars(r.ptr + 1, end, last);
    if (r.ec == std::errc::invalid_argument || r.ptr != end)
      return wrong("is not a number or range");
    huge = huge || r.ec != std::errc{};
  }
  if (huge || first < min || last < min || first > max || last > max)
    return wrong("is out of range");
  if (first > last) return wrong("runs backwards");
  return std::pair{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

std::optional<model::port_range> read_ports(const value& v) {
  if (v.is_word("any")) return model::port_range{0, 65535};
  const auto span =
      read_span(v, 1, 65535, "a port from 1 to 65535, a range such as \"8000-8100\", or any");
  if (!span) return std::nullopt;
  return model::port_range{span->first, span->second};
}

bool printable(std::string_view text, char lowest) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c >= lowest && c <= 0x7e; });
}

void read_http(const map_value& m, health_check& out) {
  if (const auto path = m.find("path")) {
    if (auto text = path->text()) {
      if (text->front() != '/' || text->size() > 1024 || !printable(*text, 0x21))
        path->error(
            "is not a request path; expected one that begins with '/', without spaces, of at most "
            "1024 bytes, such as /healthz");
      else
        out.path = std::move(*text);
    }
  }
  if (const auto host = m.find("host")) {
    if (auto text = host->text()) {
      if (text->size() > 255 || !printable(*text, 0x21))
        host->error("is not a host name; expected one such as www.example.net");
      else
        out.host = std::move(*text);
    }
  }
  if (const auto expect = m.find("expect"))
    if (const auto span = read_span(*expect, 100, 599,
                                    "a status code from 100 to 599, or a range such as "
                                    "\"200-399\"")) {
      out.expect_first = span->first;
      out.expect_last = span->second;
    }
}

void read_health(const value& v, const health_check* base, health_check& out) {
  const auto m = v.map(
      {"type", "path", "host", "expect", "port", "interval", "timeout", "rise", "fall", "via"});
  if (!m) return;
  out = base ? *base : health_check{};
  const auto type = base ? m->find("type") : m->require("type", "http");
  if (type) {
    const auto kind = type->word<health_kind>(
        {{"none", health_kind::none}, {"tcp", health_kind::tcp}, {"http", health_kind::http}});
    if (!kind) return;
    out.kind = *kind;
  } else if (!base) {
    return;
  }

  // A key that would have no effect is a mistake. What a base had for another type goes.
  const auto only_for = [&](std::initializer_list<std::string_view> keys, std::string_view types) {
    for (const std::string_view key : keys)
      if (const auto found = m->find(key))
        found->error("has no effect with this type; expected it only with type " +
                     std::string{types});
  };
  if (out.kind == health_kind::none) {
    only_for({"path", "host", "expect", "port", "interval", "timeout", "rise", "fall", "via"},
             "tcp or http");
    out = health_check{};
    return;
  }
  if (out.kind == health_kind::http) {
    read_http(*m, out);
  } else {
    only_for({"path", "host", "expect"}, "http");
    const health_check fresh;
    out.path = fresh.path;
    out.host = fresh.host;
    out.expect_first = fresh.expect_first;
    out.expect_last = fresh.expect_last;
  }
  if (const auto port = m->find("port")) assign(out.port, port->integer(1, 65535));
  if (const auto rise = m->find("rise")) assign(out.rise, rise->integer(1, 1000));
  if (const auto fall = m->find("fall")) assign(out.fall, fall->integer(1, 1000));
  if (const auto via = m->find("via"))
    assign(out.via, via->word<health_via>({{"auto", health_via::automatic},
                                           {"direct", health_via::direct},
                                           {"data-path", health_via::data_path}}));

  const auto interval = m->find("interval");
  const auto timeout = m->find("timeout");
  const bool interval_ok =
      !interval || assign(out.interval, interval->duration(milliseconds{10}, longest_interval));
  const bool timeout_ok =
      !timeout || assign(out.timeout, timeout->duration(milliseconds{1}, longest_interval));
  // Only a timeout that was asked for can be wrong; the default follows the interval.
  if (!timeout && !base) out.timeout = std::min(out.timeout, out.interval);
  if (interval_ok && timeout_ok && out.timeout > out.interval)
    (timeout    ? *timeout
     : interval ? *interval
                : v)
        .error("the timeout (" + std::to_string(out.timeout.count()) +
               "ms) is longer than the interval (" + std::to_string(out.interval.count()) +
               "ms); expected a timeout of at most the interval");
}

void read_backend(const value& v, const backend* base, backend& out, backend_origin& origin) {
  origin.path = v.path();
  origin.line = v.line();
  const auto m = v.map({"address", "weight", "tier", "admin", "port", "dscp", "quic-id"});
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
  const auto m =
      v.map({"name",         "address",        "protocol",       "port",       "scheduler",
             "table-size",   "forward",        "client-address", "mss-clamp",  "echo",
             "persistence",  "quic",           "limits",         "failover",   "slow-start",
             "flap-damping", "drain-deadline", "allow",          "deny",       "allow-file",
             "deny-file",    "health",         "discover",       "discovered", "backends"});
  if (!m) return;
  if (base) out = *base;
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
