// SPDX-License-Identifier: Apache-2.0
// explain: what the workers would do with a packet of a flow, found with the look-ups and
// in the tables that the workers use.
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "controlplane/api/connection_tables.hpp"
#include "controlplane/api/connections.hpp"
#include "controlplane/publish/recover.hpp"

namespace sluice::api {
namespace {

struct flow {
  std::uint8_t protocol{};
  ip_port source;
  ip_port destination;

  [[nodiscard]] std::uint64_t hash(std::uint64_t seed) const noexcept {
    const std::uint32_t from = be16{source.port}.raw();
    const std::uint32_t to = be16{destination.port}.raw();
    if (source.address.is_v4())
      return sluice_flow_hash4(seed, source.address.v4_raw().raw(),
                               destination.address.v4_raw().raw(), from, to, protocol);
    return sluice_flow_hash6(seed, source.address.high(), source.address.low(),
                             destination.address.high(), destination.address.low(), from, to,
                             protocol);
  }
};

// found_entry: the flow's connection in a worker's table.
struct found_entry {
  std::uint32_t worker{};
  abi::connection_view entry;
  std::uint16_t idle{};
};

// facts: what the tables say, copied while they stood still.
struct facts {
  abi::generation_header header{};
  bool published{};
  std::optional<abi::vip_row> vip;
  std::optional<abi::service_row> service;
  std::string service_name;
  std::uint64_t hash{};
  std::uint32_t slot{};
  abi::backend_ref by_hash;
  abi::backend_ref chosen;
  std::optional<abi::backend_row> backend;
  bool moved{};  // the connection's backend is gone or down
};

tl::expected<flow, reply> read_flow(const request& r) {
  flow f;
  const std::string protocol = r.parameter("protocol").value_or("");
  if (protocol != "tcp" && protocol != "udp")
    return tl::unexpected{refuse(400, "is tcp or udp", "protocol")};
  f.protocol = static_cast<std::uint8_t>(protocol == "tcp" ? ip_proto::tcp : ip_proto::udp);
  for (auto [key, to] :
       {std::pair{"source", &f.source}, std::pair{"destination", &f.destination}}) {
    const auto parsed = parse_ip_port(r.parameter(key).value_or(""));
    if (!parsed) return tl::unexpected{refuse(400, parsed.error(), key)};
    *to = *parsed;
  }
  if (f.source.address.is_v4() != f.destination.address.is_v4())
    return tl::unexpected{
        refuse(400, "is of another address family than the destination", "source")};
  return f;
}

// is_bad_source() follows dataplane/packet/parse.cpp.
bool is_bad_source(const flow& f) {
  const auto& a = f.source.address;
  if (a == f.destination.address) return true;
  if (a.is_v4()) {
    const std::uint8_t first = a.bytes[12];
    return first == 0 || first == 127 || first >= 224;
  }
  return a.bytes[0] == 0xff || (a.high() == 0 && (a.low() == 0 || a.low() == be64{1}.raw()));
}

std::optional<found_entry> find_entry(const publish::observations& data_plane, const flow& f,
                                      abi::vip_id vip, const abi::generation_header& header,
                                      json& steps) {
  const auto tables = connection_tables::open(data_plane);
  for (const auto& p : tables.problems()) steps.push_back("a connection table is left out: " + p);
  std::optional<found_entry> found;
  const be16 from{f.source.port};
  const be16 to{f.destination.port};
  tables.for_each(abi::clock_ns(CLOCK_MONOTONIC),
                  [&](std::uint32_t worker, const abi::connection_view& e, std::uint16_t idle) {
                    if (e.vip != vip || !(e.source_port == from) || !(e.destination_port == to) ||
                        e.source != f.source.address)
                      return true;
                    const auto state = static_cast<std::size_t>(e.state);
                    if (state >= abi::connection_state_count || idle > header.timeouts[state])
                      return true;
                    // A flow that has moved to another queue may have left an entry behind: the one
                    // that was seen last is in use.
                    if (!found || idle < found->idle) found = found_entry{worker, e, idle};
                    return true;
                  });
  return found;
}

facts look_up(const abi::config_view& view, const flow& f,
              const std::optional<found_entry>& connection) {
  facts out;
  out.published = !view.empty();
  if (view.empty()) return out;
  out.header = view.header();
  out.hash = f.hash(out.header.hash_seed);
  const abi::vip_row* vip = view.find_vip(f.destination.address, f.protocol);
  if (vip == nullptr) return out;
  out.vip = *vip;
  const abi::service_row* service = view.find_service(*vip, f.destination.port);
  if (service == nullptr) return out;
  out.service = *service;
  out.service_name = publish::service_name(*view.cold(service->self));
  if (service->member_count != 0 && service->table_size != 0) {
    out.slot = sluice_slot(out.hash, service->table_size);
    out.by_hash = view.choose(*service, out.hash);
  }
  out.chosen = out.by_hash;
  if (connection) {
    const abi::backend_row* kept = view.backend(connection->entry.backend);
    out.moved = kept == nullptr || (kept->flags & abi::backend_keeps_connections) == 0;
    if (!out.moved) out.chosen = connection->entry.backend;
  }
  if (const abi::backend_row* row = view.backend(out.chosen)) out.backend = *row;
  return out;
}

std::string outer_source(const facts& f) {
  const bool v4 = f.backend->address.is_v4();
  const abi::encap_source& source = v4 ? f.header.source4 : f.header.source6;
  if (source.configured == 0) return {};
  return format_prefix({source.base, source.prefix});
}

bool rest_goes_to_kernel(reconcile::controller& c) {
  const auto data_plane = c.observations().current();
  if (data_plane)
    for (unsigned i = 0; i < abi::max_ports; ++i)
      if (const auto& p = data_plane->map().port(i); p.in_use != 0 && p.leaves_rest_to_kernel != 0)
        return true;
  for (const auto& p : c.node().dataplane.ports)
    if (p.kind == device_kind::af_xdp) return true;
  return false;
}

}  // namespace

reply explain(reconcile::controller& c, const request& r) {
  const auto f = read_flow(r);
  if (!f) return f.error();
  json steps = json::array();
  json out = {{"protocol", r.parameter("protocol").value_or("")},
              {"source", format_ip_port(f->source)},
              {"destination", format_ip_port(f->destination)},
              {"verdict", "dropped"},
              {"reason", nullptr},
              {"service", nullptr},
              {"rule", "none"},
              {"worker", nullptr},
              {"connection_state", nullptr},
              {"flow_hash", nullptr},
              {"slot", nullptr},
              {"table_size", nullptr},
              {"backend", nullptr},
              {"forward", nullptr},
              {"next_hop", nullptr},
              {"outer_source", nullptr}};
  const auto end = [&](const char* verdict, const char* reason) {
    out["verdict"] = verdict;
    if (reason != nullptr) out["reason"] = reason;
    out["steps"] = std::move(steps);
    return ok(out);
  };
  const auto to_kernel_or = [&](const char* reason) {
    if (rest_goes_to_kernel(c)) {
      steps.push_back("it is left to the kernel");
      return end("kernel", nullptr);
    }
    return end("dropped", reason);
  };

  facts found = c.with_tables([&](const auto& view) { return look_up(view, *f, std::nullopt); });
  if (!found.published) {
    steps.push_back("no table has been published yet");
    return end("dropped", "no_tables");
  }
  if (!found.vip) {
    steps.push_back(format_ip(f->destination.address) + " has no service of this protocol");
    return to_kernel_or("not_for_us");
  }
  if (is_bad_source(*f)) {
    steps.push_back("no packet may come from " + format_ip(f->source.address));
    return end("dropped", "bad_source");
  }

  // The tables are large: they are read here, not on the loop's thread.
  std::optional<found_entry> connection;
  const auto data_plane = c.observations().current();
  if (data_plane && data_plane->alive()) {
    connection = find_entry(*data_plane, *f, found.vip->id, found.header, steps);
  } else {
    steps.push_back("no data plane runs: this is what one would do");
  }
  if (connection)
    found = c.with_tables([&](const auto& view) { return look_up(view, *f, connection); });

  out["flow_hash"] = hex(found.hash);
  if (connection) {
    out["worker"] = connection->worker;
    out["connection_state"] = state_name(connection->entry.state);
    steps.push_back(fmt::format("worker {} has it in its connection table: {}, idle for {} s",
                                connection->worker, state_name(connection->entry.state),
                                connection->idle));
    if (found.moved)
      steps.push_back("the connection's backend is gone or down: it is given another one");
  } else if (data_plane && data_plane->alive()) {
    steps.push_back("no worker has it in its connection table: a new connection");
  }
  const bool by_table = connection && !found.moved;
  if (!found.service && !by_table) {
    steps.push_back(fmt::format("{} has no service on port {}", format_ip(f->destination.address),
                                f->destination.port));
    return to_kernel_or("no_service_port");
  }
  if (found.service) {
    out["service"] = found.service_name;
    steps.push_back(fmt::format("service {} listens on {}", found.service_name,
                                format_ip_port(f->destination)));
    if (found.service->member_count != 0) {
      out["slot"] = found.slot;
      out["table_size"] = found.service->table_size;
      if (!by_table)
        steps.push_back(fmt::format("flow hash {} names slot {} of {}", hex(found.hash), found.slot,
                                    found.service->table_size));
    }
  }
  if (!by_table && found.service->member_count == 0) {
    steps.push_back("the service has no backend that takes new connections");
    return end("dropped", "no_backend");
  }
  out["rule"] = by_table ? "connection-table" : "maglev";
  if (!found.backend) return end("dropped", "bad_table");
  const abi::backend_row& b = *found.backend;
  out["backend"] = format_ip(b.address);
  out["forward"] = b.mode == abi::forward_mode::ipip ? "ipip" : "dsr-l2";
  steps.push_back(fmt::format("backend {}, forwarded by {}", format_ip(b.address),
                              b.mode == abi::forward_mode::ipip ? "ipip" : "dsr-l2"));
  if ((b.flags & abi::backend_has_next_hop) == 0) {
    steps.push_back("its next hop is not known");
    return end("dropped", "no_next_hop");
  }
  std::string port = std::to_string(b.out_port);
  if (b.out_port < c.node().dataplane.ports.size())
    port = c.node().dataplane.ports[b.out_port].name;
  const auto way = c.route_to(b.address);
  out["next_hop"] = {{"mac", format_mac(b.next_hop)},
                     {"port", port},
                     {"via", way ? json(format_ip(*way)) : json()}};
  if (b.mode == abi::forward_mode::ipip) {
    const std::string source = outer_source(found);
    if (source.empty()) {
      steps.push_back("no outer source address of the backend's family is configured");
      return end("dropped", "bad_table");
    }
    out["outer_source"] = source;
    steps.push_back("encapsulated, from " + source);
  }
  steps.push_back(fmt::format("sent to {} through port {}", format_mac(b.next_hop), port));
  return end("forwarded", nullptr);
}

}  // namespace sluice::api
