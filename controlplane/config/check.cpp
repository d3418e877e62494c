// SPDX-License-Identifier: Apache-2.0
#include "controlplane/config/check.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "controlplane/config/kernel_port.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/slot_table.hpp"
#include "dataplane/abi/version.hpp"

namespace sluice::config {
namespace {

using model::service;

constexpr std::size_t longest_name = 48;  // its place in the shared tables
// Positions in a lookup table have at most 16 bits (dataplane/abi/slot_table.hpp).
constexpr std::size_t max_service_backends = 65535;

struct address_hash {
  std::size_t operator()(const ip_address& a) const noexcept {
    return static_cast<std::size_t>((a.low() ^ a.high() * 0x9e3779b97f4a7c15ull) *
                                    0xbf58476d1ce4e5b9ull);
  }
};

// unfit() says why an address can be neither VIP nor backend; empty: it can.
std::string_view unfit(const ip_address& a) {
  const auto& b = a.bytes;
  if (a.is_v4()) {
    if (b[12] == 0) return "an unspecified address (0.0.0.0/8)";
    if (b[12] == 127) return "a loopback address";
    if (b[12] == 169 && b[13] == 254) return "a link-local address";
    if (b[12] >= 224 && b[12] < 240) return "a multicast address";
    if (b[12] == 255 && b[13] == 255 && b[14] == 255 && b[15] == 255)
      return "the broadcast address";
    return {};
  }
  if (b[0] == 0xff) return "a multicast address";
  if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) return "a link-local address";
  if (std::all_of(b.begin(), b.end() - 1, [](std::uint8_t x) { return x == 0; })) {
    if (b[15] == 0) return "the unspecified address";
    if (b[15] == 1) return "the loopback address";
  }
  return {};
}

bool prime(std::uint32_t n) {
  if (n < 2 || n % 2 == 0) return n == 2;
  for (std::uint32_t d = 3; std::uint64_t{d} * d <= n; d += 2)
    if (n % d == 0) return false;
  return true;
}

std::uint32_t prime_from(std::uint32_t n) {
  while (!prime(n)) ++n;
  return n;
}

std::string key_of(const service& s, const service_origin* o, std::string_view field) {
  if (!o) return "services[" + s.name + "]." + std::string{field};
  return (o->path.empty() ? "" : o->path + ".") + std::string{field};
}

struct place {
  unsigned line;
  std::string key;
};

place backend_place(const service& s, const service_origin* o, std::size_t j) {
  if (o && j < o->backends.size())
    return {o->backends[j].line,
            (o->backends[j].path.empty() ? "" : o->backends[j].path + ".") + "address"};
  return {0, key_of(s, o, "backends[" + format_ip(s.backends[j].address) + "]")};
}

bool backend_known(const service_origin* o, std::size_t j) {
  return !o || j >= o->backends.size() || o->backends[j].address_ok;
}

// named() is how a message points at another service.
std::string named(const service& s, const service_origin* o) {
  return "service " + yaml::shown(s.name) +
         (o && o->line != 0 ? " (line " + std::to_string(o->line) + ")" : "");
}

// option_place() is where a backend's key other than its address stands.
place option_place(const service& s, const service_origin* o, std::size_t j,
                   std::string_view field) {
  if (o && j < o->backends.size())
    return {o->backends[j].line,
            (o->backends[j].path.empty() ? "" : o->backends[j].path + ".") + std::string{field}};
  return {0,
          key_of(s, o, "backends[" + format_ip(s.backends[j].address) + "]." + std::string{field})};
}

// check_backend_options() looks at the keys of a backend that its service has no use for, or
// needs.
void check_backend_options(const service& s, const service_origin* o, std::size_t j,
                           yaml::error_list& errors) {
  const model::backend& b = s.backends[j];
  const std::string forward = "forward: " + std::string{model::to_string(s.forward)};
  const auto wrong = [&](std::string_view field, std::string message) {
    const auto at = option_place(s, o, j, field);
    errors.add(at.line, at.key, std::move(message));
  };
  if (b.port != 0 && !model::translates(s.forward))
    wrong("port", "has no effect with " + forward + "; expected it only with nat or full-nat");
  const bool marks = s.forward == model::forward_mode::dsr_dscp;
  if (b.dscp != 0 && !marks)
    wrong("dscp", "has no effect with " + forward + "; expected it only with dsr-dscp");
  if (b.dscp == 0 && marks)
    wrong("dscp",
          "is missing; dsr-dscp names the service's address by it, so expected a number from 1 to "
          "63");
  if (b.quic_id.length == 0) return;
  if (s.quic_id_length == 0)
    wrong("quic-id", "has no effect without quic in the service; expected no quic-id");
  else if (b.quic_id.length != s.quic_id_length)
    wrong("quic-id", "has " + std::to_string(b.quic_id.length) +
                         " bytes; expected as many as quic.server-id-length says (" +
                         std::to_string(s.quic_id_length) + ")");
}

void check_quic_ids(const service& s, const service_origin* o, yaml::error_list& errors) {
  std::map<std::array<std::uint8_t, 8>, std::size_t> seen;
  for (std::size_t j = 0; j < s.backends.size(); ++j) {
    if (s.backends[j].quic_id.length == 0) continue;
    const auto [first, fresh] = seen.emplace(s.backends[j].quic_id.bytes, j);
    if (fresh) continue;
    const auto at = option_place(s, o, j, "quic-id");
    errors.add(at.line, at.key,
               to_string(s.backends[j].quic_id) + " is the id of " +
                   format_ip(s.backends[first->second].address) +
                   " already; expected an id of its own");
  }
}

void check_backends(const service& s, const service_origin* o, const context& node,
                    yaml::error_list& errors) {
  const bool v4 = s.address.is_v4();
  std::unordered_map<ip_address, std::size_t, address_hash> seen;
  bool source4_told = node.encap_ipv4;
  bool source6_told = node.encap_ipv6;
  for (std::size_t j = 0; j < s.backends.size(); ++j) {
    if (!backend_known(o, j)) continue;
    const ip_address& a = s.backends[j].address;
    const auto at = backend_place(s, o, j);
    const std::string text = format_ip(a);
    if (const auto why = unfit(a); !why.empty())
      errors.add(at.line, at.key,
                 text + " is " + std::string{why} + "; expected a unicast address of a backend");
    const auto [first, fresh] = seen.emplace(a, j);
    if (!fresh) {
      const unsigned line = backend_place(s, o, first->second).line;
      errors.add(at.line, at.key,
                 text + " is a backend of this service already" +
                     (line != 0 ? " (line " + std::to_string(line) + ")" : "") +
                     "; expected each address once");
    }
    if (!model::tunnels(s.forward) && a.is_v4() != v4 && (!o || o->address_ok))
      errors.add(at.line, at.key,
                 text + " is " + (v4 ? "IPv6" : "IPv4") + " but the service's address is " +
                     (v4 ? "IPv4" : "IPv6") + "; " + std::string{model::to_string(s.forward)} +
                     " does not change the family, so expected the same");
    bool& told = a.is_v4() ? source4_told : source6_told;
    const std::string family = a.is_v4() ? "ipv4" : "ipv6";
    if (model::tunnels(s.forward) && !told) {
      told = true;
      errors.add(o ? o->forward : 0, key_of(s, o, "forward"),
                 std::string{model::to_string(s.forward)} + " to " + text +
                     " needs an outer source address; expected dataplane.encap-source." + family +
                     " in node.yaml");
    }
    check_backend_options(s, o, j, errors);
  }
  if (s.forward == model::forward_mode::full_nat && (!o || o->address_ok) &&
      !(v4 ? node.pool_ipv4 : node.pool_ipv6))
    errors.add(o ? o->forward : 0, key_of(s, o, "forward"),
               std::string{"full-nat needs source addresses; expected dataplane.nat-pool."} +
                   (v4 ? "ipv4" : "ipv6") + " in node.yaml");
  check_quic_ids(s, o, errors);
}

// check_way_of_probes() refuses what was asked for and cannot be.
void check_way_of_probes(const service& s, const service_origin* o, const context& node,
                         yaml::error_list& errors) {
  if (s.health.source && !model::tunnels(s.forward) && (!o || o->address_ok) &&
      s.health.source->is_v4() != s.address.is_v4())
    errors.add(o ? o->health : 0, key_of(s, o, "health.source"),
               format_ip(*s.health.source) +
                   " is of another family than the service's address; expected one of that, or "
                   "auto");
  if (s.health.via != model::health_via::data_path) return;
  const auto wrong = [&](std::string message) {
    errors.add(o ? o->health : 0, key_of(s, o, "health.via"), std::move(message));
  };
  if (model::translates(s.forward))
    wrong("data-path is impossible with forward: " + std::string{model::to_string(s.forward)} +
          ", whose backends do not have the service's address; expected auto or direct");
  else if (!model::carries(s.forward, s.health.kind))
    wrong("data-path is impossible with forward: " + std::string{model::to_string(s.forward)} +
          " for type: " + std::string{model::to_string(s.health.kind)} +
          ": the DSCP names the VIP of TCP and UDP alone; expected auto or direct");
  else if (!node.probes_through)
    wrong(
        "data-path is impossible: no port in node.yaml is an interface of the kernel or has a "
        "twin; "
        "expected auto or direct");
}

void check_names(const std::vector<service>& services, const std::vector<service_origin>& origins,
                 yaml::error_list& errors) {
  std::unordered_map<std::string_view, std::size_t> seen;
  for (std::size_t i = 0; i < services.size(); ++i) {
    const service_origin* o = origins.empty() ? nullptr : &origins[i];
    if (o && !o->name_ok) continue;
    const auto [first, fresh] = seen.emplace(services[i].name, i);
    if (!fresh)
      errors.add(o ? o->name : 0, key_of(services[i], o, "name"),
                 "'" + services[i].name + "' is the name of another service" +
                     (o ? " (line " + std::to_string(origins[first->second].line) + ")" : "") +
                     "; expected a name of its own");
  }
}

// check_vips() finds services that would listen on the same port. `any` takes what the
// other services of its address leave, so it clashes with another `any` only.
void check_vips(const std::vector<service>& services, const std::vector<service_origin>& origins,
                yaml::error_list& errors) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < services.size(); ++i)
    if (origins.empty() || (origins[i].address_ok && origins[i].port_ok)) order.push_back(i);
  const auto key = [&](std::size_t i) {
    const service& s = services[i];
    return std::tuple{s.address, s.protocol, !s.port.any(), s.port.first, i};
  };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  const auto same_vip = [&](std::size_t a, std::size_t b) {
    const service &x = services[a], &y = services[b];
    return x.address == y.address && x.protocol == y.protocol && x.port.any() == y.port.any();
  };
  std::size_t widest = 0;  // of those before, the one that reaches furthest
  for (std::size_t n = 0; n < order.size(); ++n) {
    const std::size_t i = order[n];
    if (n == 0 || !same_vip(order[n - 1], i)) {
      widest = i;
      continue;
    }
    if (services[i].port.first <= services[widest].port.last) {
      // Told at the one that comes later in the file.
      const std::size_t later = std::max(i, widest);
      const std::size_t earlier = std::min(i, widest);
      const service_origin* o = origins.empty() ? nullptr : &origins[later];
      const service_origin* other = origins.empty() ? nullptr : &origins[earlier];
      errors.add(o ? o->address : 0, key_of(services[later], o, "address"),
                 identity(services[later]) + " overlaps " + identity(services[earlier]) + " of " +
                     named(services[earlier], other) +
                     "; expected another address, protocol or port");
    }
    if (services[i].port.last > services[widest].port.last) widest = i;
  }
}

void check_backends_are_no_vips(const std::vector<service>& services,
                                const std::vector<service_origin>& origins,
                                yaml::error_list& errors) {
  std::unordered_map<ip_address, std::size_t, address_hash> vips;
  for (std::size_t i = 0; i < services.size(); ++i)
    if (origins.empty() || origins[i].address_ok) vips.emplace(services[i].address, i);
  for (std::size_t i = 0; i < services.size(); ++i) {
    const service_origin* o = origins.empty() ? nullptr : &origins[i];
    for (std::size_t j = 0; j < services[i].backends.size(); ++j) {
      if (!backend_known(o, j)) continue;
      const ip_address& a = services[i].backends[j].address;
      const auto vip = vips.find(a);
      if (vip == vips.end()) continue;
      const auto at = backend_place(services[i], o, j);
      errors.add(
          at.line, at.key,
          format_ip(a) + " is the address of " +
              named(services[vip->second], origins.empty() ? nullptr : &origins[vip->second]) +
              "; a backend needs an address of its own, or packets would go round in "
              "circles");
    }
  }
}

// check_dscps() finds backends for which a DSCP would stand for two addresses.
void check_dscps(const std::vector<service>& services, const std::vector<service_origin>& origins,
                 yaml::error_list& errors) {
  std::map<std::pair<ip_address, std::uint8_t>, std::size_t> seen;  // the first service
  for (std::size_t i = 0; i < services.size(); ++i) {
    const service& s = services[i];
    const service_origin* o = origins.empty() ? nullptr : &origins[i];
    if (s.forward != model::forward_mode::dsr_dscp || (o && !o->address_ok)) continue;
    for (std::size_t j = 0; j < s.backends.size(); ++j) {
      const model::backend& b = s.backends[j];
      if (b.dscp == 0 || !backend_known(o, j)) continue;
      const auto [first, fresh] = seen.emplace(std::pair{b.address, b.dscp}, i);
      const service& other = services[first->second];
      if (fresh || other.address == s.address) continue;
      const auto at = option_place(s, o, j, "dscp");
      errors.add(at.line, at.key,
                 std::to_string(b.dscp) + " stands for " + format_ip(other.address) + " at " +
                     format_ip(b.address) + " already, by " +
                     named(other, origins.empty() ? nullptr : &origins[first->second]) +
                     "; expected another number for another address");
    }
  }
}

void check_limits(const std::vector<service>& services, unsigned line, const context& node,
                  yaml::error_list& errors) {
  std::size_t backends = 0;
  std::uint64_t table_bytes = 0;
  std::vector<const model::prefix_set*> lists;  // that differ
  for (const service& s : services) {
    backends += s.backends.size();
    const std::size_t slots = model::sized(s.scheduler) ? s.table_size : s.backends.size();
    table_bytes += abi::table_bytes(static_cast<std::uint32_t>(slots), s.backends.size());
    for (const model::prefix_set* set : {&s.allow, &s.deny})
      if (set->given() && lists.size() <= abi::max_prefix_lists &&
          std::none_of(lists.begin(), lists.end(), [set](const auto* l) { return *l == *set; }))
        lists.push_back(set);
  }
  const auto exceeded = [&](std::string_view what, std::uint64_t n, std::string_view limit,
                            std::uint64_t allowed) {
    if (n > allowed)
      errors.add(line, "services",
                 std::to_string(n) + " " + std::string{what} + "; expected at most " +
                     std::to_string(allowed) + " (controlplane.limits." + std::string{limit} +
                     " in node.yaml)");
  };
  exceeded("services", services.size(), "services", node.max_services);
  exceeded("backends", backends, "backends", node.max_backends);
  if (lists.size() > abi::max_prefix_lists)
    errors.add(line, "services",
               "more than " + std::to_string(abi::max_prefix_lists) +
                   " different allow and deny lists; expected services to share them");
  if (node.table_memory_mib != 0)
    exceeded("MiB of lookup tables", (table_bytes + (1u << 20) - 1) >> 20, "table-memory",
             node.table_memory_mib);
}

// check_values() looks at what a parser guarantees and a program may get wrong.
void check_values(const service& s, yaml::error_list& errors) {
  const auto wrong = [&](std::string_view field, std::string message) {
    errors.add(0, key_of(s, nullptr, field), std::move(message));
  };
  if (!valid_service_name(s.name)) wrong("name", yaml::shown(s.name) + " is not a service name");
  if (s.port.first > s.port.last || (s.port.first == 0 && s.port.last != 65535))
    wrong("port", "is not a range of ports");
  const bool tcp = s.protocol == model::protocol::tcp;
  if (s.client != model::client_address::none &&
      (s.forward != model::forward_mode::full_nat || !tcp))
    wrong("client-address", "has no effect; expected it only with full-nat and tcp");
  if (!s.mss_clamp.off() && !tcp) wrong("mss-clamp", "has no effect; expected it only with tcp");
  if (s.limits.syn_flood != 0 && !tcp)
    wrong("limits.syn-flood", "has no effect; expected it only with tcp");
  if (s.quic_id_length > 8 || (s.quic_id_length != 0 && tcp))
    wrong("quic", "is impossible; expected 1 to 8 bytes, with udp");
  if (s.discover.given() && s.discover.kind != model::discovery_kind::file &&
      s.forward == model::forward_mode::dsr_dscp)
    wrong("discover", std::string{model::to_string(s.discover.kind)} +
                          " has no DSCP for the backends, which dsr-dscp needs; expected file");
  if (!s.slow_start.off() && (!model::weighs(s.scheduler) || s.slow_start.steps == 0))
    wrong("slow-start", "has no effect; expected it only with schedulers that take weights");
  for (const model::backend& b : s.backends)
    if (b.weight > 65535) wrong("backends[" + format_ip(b.address) + "].weight", "is over 65535");
}

}  // namespace

bool valid_service_name(std::string_view name) noexcept {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= longest_name && plain(name[0]) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; });
}

void check_service(const service& s, const service_origin* o, const context& node,
                   yaml::error_list& errors) {
  if (!o || o->address_ok)
    if (const auto why = unfit(s.address); !why.empty())
      errors.add(o ? o->address : 0, key_of(s, o, "address"),
                 format_ip(s.address) + " is " + std::string{why} +
                     "; expected a unicast address that clients can reach");
  const std::string size = std::to_string(s.table_size);
  if (s.backends.size() > max_service_backends)
    errors.add(o ? o->line : 0, key_of(s, o, "backends"),
               std::to_string(s.backends.size()) + " backends; expected at most " +
                   std::to_string(max_service_backends) + " in one service");
  if (!prime(s.table_size))
    errors.add(o ? o->table_size : 0, key_of(s, o, "table-size"),
               size + " is not prime; expected a prime, such as " +
                   std::to_string(prime_from(s.table_size)));
  if (s.table_size < s.backends.size())
    errors.add(o ? o->table_size : 0, key_of(s, o, "table-size"),
               size + " is smaller than the number of backends (" +
                   std::to_string(s.backends.size()) +
                   "); expected a prime, best 100 times that number or more, such as " +
                   std::to_string(prime_from(static_cast<std::uint32_t>(
                       std::min<std::size_t>(s.backends.size() * 100, 16'000'000)))));
  if (model::has_port(s.health.kind) && s.health.port == 0 && !s.port.single() &&
      (!o || o->port_ok))
    errors.add(o ? o->health : 0, key_of(s, o, "health.port"),
               "is missing; the service has no single port (" + to_string(s.port) +
                   "), so expected the port to check, such as 80");
  check_way_of_probes(s, o, node, errors);
  if (node.checks && s.health.kind == model::health_kind::exec &&
      !model::may_run(s.health.command.empty() ? std::string_view{} : s.health.command[0],
                      *node.checks))
    errors.add(
        o ? o->health : 0, key_of(s, o, "health.command"),
        node.checks->empty()
            ? "is not run: checks is off in node.yaml; expected another type"
            : "is not in " + *node.checks + "; expected a program there (checks in node.yaml)");
  check_backends(s, o, node, errors);
}

void check_services(const std::vector<service>& services,
                    const std::vector<service_origin>& origins, unsigned list_line,
                    const context& node, yaml::error_list& errors) {
  for (std::size_t i = 0; i < services.size(); ++i)
    check_service(services[i], origins.empty() ? nullptr : &origins[i], node, errors);
  check_names(services, origins, errors);
  check_vips(services, origins, errors);
  check_backends_are_no_vips(services, origins, errors);
  check_dscps(services, origins, errors);
  check_limits(services, list_line, node, errors);
}

std::vector<config_error> check(const model::desired_state& state, const context& node,
                                std::string_view file_name) {
  yaml::error_list errors{file_name};
  for (const service& s : state.services) check_values(s, errors);
  check_services(state.services, {}, 0, node, errors);
  return errors.take();
}

namespace {

bool has_pool(const node_config& node, bool v4) {
  const auto& pool = node.dataplane.nat_pool;
  return std::any_of(pool.begin(), pool.end(), [v4](const auto& a) { return a.is_v4() == v4; });
}

}  // namespace

context context::of(const node_config& node) {
  const limits_config& limits = node.controlplane.limits;
  return {.encap_ipv4 = node.dataplane.encap_source_ipv4.has_value(),
          .encap_ipv6 = node.dataplane.encap_source_ipv6.has_value(),
          .pool_ipv4 = has_pool(node, true),
          .pool_ipv6 = has_pool(node, false),
          .probes_through =
              std::any_of(node.dataplane.ports.begin(), node.dataplane.ports.end(), is_kernel_port),
          .checks = node.controlplane.checks,
          .max_services = limits.services,
          .max_backends = limits.backends,
          .table_memory_mib = limits.table_memory_mib};
}

}  // namespace sluice::config
