// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/connections.hpp"

#include <charconv>
#include <map>

#include "controlplane/api/connection_tables.hpp"
#include "controlplane/api/objects.hpp"
#include "controlplane/publish/recover.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t default_limit = 1000;
constexpr std::size_t most_limit = 100'000;

std::string protocol_name(std::uint8_t protocol) {
  return protocol == static_cast<std::uint8_t>(ip_proto::udp) ? "udp" : "tcp";
}

// entry_names finds the names behind the numbers of connection entries.
class entry_names {
 public:
  explicit entry_names(const view_of_now& v) : tables_{v.snap.tables} {
    for (const auto& vip : tables_.vips) vips_.emplace(vip.id, &vip);
    for (std::size_t i = 0; i < tables_.services.size(); ++i)
      if (tables_.services[i].self != abi::no_service)
        names_.emplace(tables_.services[i].self, publish::service_name(tables_.service_colds[i]));
  }
  [[nodiscard]] const abi::vip_row* vip(abi::vip_id id) const {
    const auto at = vips_.find(id);
    return at == vips_.end() ? nullptr : at->second;
  }
  // backend() is null when the backend is gone: the next packet finds another.
  [[nodiscard]] const abi::backend_row* backend(abi::backend_ref ref) const {
    if (ref.index() >= tables_.backends.size()) return nullptr;
    const abi::backend_row& row = tables_.backends[ref.index()];
    return (row.flags & abi::backend_in_use) != 0 && row.incarnation == ref.incarnation() ? &row
                                                                                          : nullptr;
  }
  // service() is the service of an entry, by its backend or else by its VIP and port.
  [[nodiscard]] std::string service(const abi::connection_view& c) const {
    if (const abi::backend_row* b = backend(c.backend)) return name(b->service);
    const abi::service_row* best = nullptr;
    const std::uint16_t port = c.destination_port.host();
    for (const auto& s : tables_.services) {
      if (s.self == abi::no_service || s.vip != c.vip || port < s.port_first || port > s.port_last)
        continue;
      if (best == nullptr || s.port_last - s.port_first < best->port_last - best->port_first)
        best = &s;
    }
    return best == nullptr ? std::string{} : name(best->self);
  }
  // live() tells whether the worker still counts the entry (an idle one goes when it is met, and
  // one whose backend is gone is forgotten, or given another).
  [[nodiscard]] bool live(const abi::connection_view& c, std::uint16_t idle) const {
    const auto state = static_cast<std::size_t>(c.state);
    return state < abi::connection_state_count && idle <= tables_.header.timeouts[state] &&
           vip(c.vip) != nullptr && backend(c.backend) != nullptr;
  }

 private:
  [[nodiscard]] std::string name(abi::service_id id) const {
    const auto at = names_.find(id);
    return at == names_.end() ? std::string{} : at->second;
  }
  const publish::shown_tables& tables_;
  std::map<abi::vip_id, const abi::vip_row*> vips_;
  std::map<abi::service_id, std::string> names_;
};

// service_parameter() is the service to show only; an unknown one is an error reply.
std::optional<reply> check_service(const view_of_now& v, const request& r) {
  const auto only = r.parameter("service");
  if (!only) return std::nullopt;
  for (const auto& s : v.snap.services)
    if (s->config.name == *only) return std::nullopt;
  return refuse(404, "there is no service '" + *only + "'");
}

}  // namespace

std::string state_name(abi::connection_state s) {
  switch (s) {
    case abi::connection_state::free:
      return "free";
    case abi::connection_state::closed:
      return "closed";
    case abi::connection_state::syn:
      return "syn";
    case abi::connection_state::learned:
      return "learned";
    case abi::connection_state::udp_new:
      return "udp-new";
    case abi::connection_state::closing:
      return "closing";
    case abi::connection_state::udp:
      return "udp";
    case abi::connection_state::established:
      return "established";
    case abi::connection_state::count_:
      break;
  }
  return "unknown";
}

reply count_connections(reconcile::controller& c, const request& r) {
  const view_of_now v = view_of_now::take(c);
  if (auto wrong = check_service(v, r)) return *wrong;
  const auto only = r.parameter("service");
  const entry_names names{v};
  std::uint64_t total = 0;
  std::map<std::string, std::uint64_t> by_state;
  std::map<std::string, std::uint64_t> by_service;
  for (std::size_t i = 1; i < abi::connection_state_count; ++i)
    by_state[state_name(static_cast<abi::connection_state>(i))] = 0;
  for (const auto& s : v.snap.services)
    if (!only || s->config.name == *only) by_service[s->config.name] = 0;
  if (v.alive) {
    const auto tables = connection_tables::open(*v.data_plane);
    if (!tables.problems().empty()) return refuse(503, tables.problems().front());
    tables.for_each(v.now_ns,
                    [&](std::uint32_t, const abi::connection_view& e, std::uint16_t idle) {
                      if (!names.live(e, idle)) return true;
                      const std::string service = names.service(e);
                      if (only && service != *only) return true;
                      ++total;
                      ++by_state[state_name(e.state)];
                      if (!service.empty()) ++by_service[service];
                      return true;
                    });
  }
  return ok({{"total", total}, {"by_state", by_state}, {"by_service", by_service}});
}

reply flush_connections(reconcile::controller& c, const request& r) {
  const auto only = r.parameter("service");
  const auto done = c.flush(only);
  if (!done) {
    const auto why = done.error().why;
    return refuse(why == reconcile::refusal::not_found ? 404 : 503, done.error().errors);
  }
  return ok({{"services", *done}});
}

reply list_connections(reconcile::controller& c, const request& r) {
  std::size_t limit = default_limit;
  if (const auto text = r.parameter("limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc{} || end != text->data() + text->size() || limit == 0 ||
        limit > most_limit)
      return refuse(400, "is a number from 1 to " + std::to_string(most_limit), "limit");
  }
  const view_of_now v = view_of_now::take(c);
  if (auto wrong = check_service(v, r)) return *wrong;
  const auto only = r.parameter("service");
  const entry_names names{v};
  json list = json::array();
  bool truncated = false;
  if (v.alive) {
    const auto tables = connection_tables::open(*v.data_plane);
    if (!tables.problems().empty()) return refuse(503, tables.problems().front());
    tables.for_each(v.now_ns, [&](std::uint32_t worker, const abi::connection_view& e,
                                  std::uint16_t idle) {
      if (!names.live(e, idle)) return true;
      const std::string service = names.service(e);
      if (only && service != *only) return true;
      if (list.size() == limit) {
        truncated = true;
        return false;
      }
      const abi::vip_row* vip = names.vip(e.vip);
      const abi::backend_row* backend = names.backend(e.backend);
      list.push_back({{"protocol", protocol_name(vip->protocol)},
                      {"source", format_ip_port({e.source, e.source_port.host()})},
                      {"destination", format_ip_port({vip->address, e.destination_port.host()})},
                      {"service", service.empty() ? json() : json(service)},
                      {"backend", backend ? json(format_ip(backend->address)) : json()},
                      {"state", state_name(e.state)},
                      {"idle_s", idle},
                      {"worker", worker}});
      return true;
    });
  }
  return ok({{"connections", std::move(list)}, {"truncated", truncated}});
}

}  // namespace sluice::api
