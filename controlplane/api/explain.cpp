// SPDX-License-Identifier: Apache-2.0
// explain: what the workers would do with a packet of a flow, found with the look-ups and
// in the tables that the workers use.
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "controlplane/api/connections.hpp"
#include "controlplane/api/explain_facts.hpp"
#include "controlplane/model/text.hpp"

namespace sluice::api {
namespace {

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

std::string outer_source(const facts& f) {
  const bool v4 = f.backend->address.is_v4();
  const abi::encap_source& source = v4 ? f.header.source4 : f.header.source6;
  if (source.configured == 0) return {};
  return format_prefix({source.base, source.prefix});
}

model::forward_mode mode_of(const abi::backend_row& b) {
  return static_cast<model::forward_mode>(b.mode);
}

// tell_lists() says what the service's lists say of the source; false: it may not in.
bool tell_lists(const facts& f, const ip_address& source, json& steps) {
  if (!f.options) return true;
  if (f.denied) {
    steps.push_back(format_ip(source) + " is in the service's deny list");
    return false;
  }
  if (f.options->deny_list != abi::no_list)
    steps.push_back(format_ip(source) + " is not in the service's deny list");
  if (f.options->allow_list != abi::no_list)
    steps.push_back(format_ip(source) + (f.allowed ? " is" : " is not") +
                    " in the service's allow list");
  return f.allowed;
}

// tell_limits() says above what rates the packet would be dropped.
void tell_limits(const facts& f, const flow& packet, json& steps) {
  if (!f.options) return;
  const abi::service_options& o = *f.options;
  const bool v4 = packet.source.address.is_v4();
  const auto limit = [&](std::uint32_t rate, std::string_view of, std::string_view reason) {
    if (rate != 0)
      steps.push_back(fmt::format("more than {} {} on a worker in a second are dropped ({})", rate,
                                  of, reason));
  };
  limit(o.packet_rate, "packets", "packet_rate");
  limit(o.connection_rate, "new connections", "connection_rate");
  limit(o.source_connection_rate,
        fmt::format("new connections of one /{} source", v4 ? o.source_prefix4 : o.source_prefix6),
        "source_rate");
  if (o.syn_flood_rate != 0 && packet.protocol == static_cast<std::uint8_t>(ip_proto::tcp))
    steps.push_back(fmt::format(
        "while more than {} SYNs come to a worker in a second, a SYN takes no table entry",
        o.syn_flood_rate));
}

// tell_choice() says by which rule a new connection is given its backend, and returns the
// rule's name.
std::string tell_choice(const facts& f, const flow& packet, json& steps) {
  const abi::service_row& s = *f.service;
  const std::string kind{model::to_string(static_cast<model::scheduler_kind>(s.kind))};
  if (!f.quic_ids.empty())
    steps.push_back(
        fmt::format("a QUIC packet whose connection id has a server id goes by that: {}",
                    fmt::join(f.quic_ids, ", ")));
  const bool persists = f.options && f.options->persistence_timeout != 0;
  if (persists)
    steps.push_back(fmt::format(
        "persistence: a /{} source that has opened a connection within {} s stays where it is",
        packet.source.address.is_v4() ? f.options->persistence_prefix4
                                      : f.options->persistence_prefix6,
        f.options->persistence_timeout));
  const bool by_source = persists || s.kind == abi::scheduler::source_hash;
  if (f.by_hash()) {
    if (f.slot)
      steps.push_back(
          fmt::format("{}: {} hash {} names slot {} of {}",
                      persists && s.kind > abi::scheduler::source_hash ? "any other source" : kind,
                      by_source ? "source" : "flow", hex(f.hash), *f.slot, s.table_size));
    return persists ? "persistence" : kind;
  }
  std::vector<std::string> names;
  for (const ip_address& a : f.members) names.push_back(format_ip(a));
  if (names.size() < s.member_count) names.push_back("...");
  steps.push_back(fmt::format("{}: each worker chooses by itself, of {} backends ({})", kind,
                              s.member_count, fmt::join(names, ", ")));
  if (f.backend)
    steps.push_back(fmt::format("a packet without an entry goes to {}, by the {} hash",
                                format_ip(f.backend->address), by_source ? "source" : "flow"));
  return kind;
}

// tell_rewrite() says what happens to the packet; false: it cannot be done.
bool tell_rewrite(const facts& f, const flow& packet, json& out, json& steps) {
  const abi::backend_row& b = *f.backend;
  const model::forward_mode mode = mode_of(b);
  const std::uint16_t overhead = model::overhead(mode, b.address.is_v4());
  const int room = b.mtu - overhead;
  out["room"] = room;
  if (model::tunnels(mode)) {
    const std::string source = outer_source(f);
    if (source.empty()) {
      steps.push_back("no outer source address of the backend's family is configured");
      return false;
    }
    out["outer_source"] = source;
    const std::string to =
        mode == model::forward_mode::gue ? fmt::format(", UDP port {}", f.header.gue_port) : "";
    steps.push_back(
        fmt::format("encapsulated, from {}{}: {} bytes more, so that packets of up to "
                    "{} bytes fit its path of {}",
                    source, to, overhead, room, b.mtu));
  } else if (mode == model::forward_mode::dsr_dscp) {
    steps.push_back(
        fmt::format("its destination becomes {}, its DSCP {}", format_ip(b.address), b.dscp));
  } else if (model::translates(mode)) {
    const std::uint16_t port = b.port != 0 ? b.port : packet.destination.port;
    steps.push_back(fmt::format("its destination becomes {}", format_ip_port({b.address, port})));
    if (mode == model::forward_mode::full_nat)
      steps.push_back(
          fmt::format("its source becomes one of nat-pool, which has {} of its family", f.pool));
  }
  if (!model::tunnels(mode) && room != 1500)
    steps.push_back(fmt::format("packets of up to {} bytes fit its path", room));
  if (f.service && f.service->mss_clamp != 0 &&
      packet.protocol == static_cast<std::uint8_t>(ip_proto::tcp))
    steps.push_back(fmt::format("a SYN's segment size is lowered to {}", f.service->mss_clamp));
  return true;
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
              {"scheduler", nullptr},
              {"rule", "none"},
              {"worker", nullptr},
              {"connection_state", nullptr},
              {"flow_hash", nullptr},
              {"slot", nullptr},
              {"table_size", nullptr},
              {"backend", nullptr},
              {"forward", nullptr},
              {"next_hop", nullptr},
              {"room", nullptr},
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

  out["flow_hash"] = hex(f->hash(found.header.hash_seed));
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
    out["scheduler"] =
        std::string{model::to_string(static_cast<model::scheduler_kind>(found.service->kind))};
    steps.push_back(fmt::format("service {} listens on {}", found.service_name,
                                format_ip_port(f->destination)));
    if (found.service->member_count != 0) {
      out["slot"] = found.slot && found.by_hash() ? json(*found.slot) : json();
      out["table_size"] = found.service->table_size;
    }
  }
  if (by_table) {
    out["rule"] = "connection-table";
  } else {
    // Lists and limits are for packets without a connection, but for the packet rate.
    if (!connection) {
      if (!tell_lists(found, f->source.address, steps)) return end("dropped", "denied");
      tell_limits(found, *f, steps);
    }
    if (found.service->member_count == 0) {
      steps.push_back("the service has no backend that takes new connections");
      return end("dropped", "no_backend");
    }
    out["rule"] = tell_choice(found, *f, steps);
    // A connection that has lost its backend is given another by the hash.
    if (!connection && !found.by_hash() && found.service->member_count > 1 && found.backend) {
      out["forward"] = std::string{model::to_string(mode_of(*found.backend))};
      return end("forwarded", nullptr);
    }
  }
  if (!found.backend) return end("dropped", "bad_table");
  const abi::backend_row& b = *found.backend;
  const std::string forward{model::to_string(mode_of(b))};
  out["backend"] = format_ip(b.address);
  out["forward"] = forward;
  steps.push_back(fmt::format("backend {}, forwarded by {}", format_ip(b.address), forward));
  if ((b.flags & abi::backend_has_next_hop) == 0) {
    steps.push_back("its next hop is not known");
    return end("dropped", "no_next_hop");
  }
  if (!tell_rewrite(found, *f, out, steps)) return end("dropped", "bad_table");
  std::string port = std::to_string(b.out_port);
  if (b.out_port < c.node().dataplane.ports.size())
    port = c.node().dataplane.ports[b.out_port].name;
  const auto way = c.route_to(b.address);
  out["next_hop"] = {{"mac", format_mac(b.next_hop)},
                     {"port", port},
                     {"via", way ? json(format_ip(*way)) : json()}};
  steps.push_back(fmt::format("sent to {} through port {}", format_mac(b.next_hop), port));
  return end("forwarded", nullptr);
}

}  // namespace sluice::api
