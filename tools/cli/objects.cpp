// SPDX-License-Identifier: Apache-2.0
// service add|set|remove, backend add|set|drain|undrain|remove: single objects.
#include <algorithm>
#include <iostream>
#include <optional>

#include <fmt/format.h>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

// scalar() makes a number of text that is one, so that the server sees the type that
// the same word has in services.yaml.
json scalar(const std::string& text) {
  const bool digits =
      !text.empty() && text.size() < 10 &&
      std::all_of(text.begin(), text.end(), [](char ch) { return ch >= '0' && ch <= '9'; });
  return digits ? json(std::stol(text)) : json(text);
}

// key_values() reads "type=http,path=/healthz,interval=2s". A key with a dot is one of a map
// in the map: "per-source.new-connections=10".
json key_values(const std::string& option, const std::string& text) {
  json out = json::object();
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, comma - at);
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos || equals == 0)
      throw CLI::ValidationError(option, "wants key=value[,key=value...], not \"" + part + "\"");
    const std::string key = part.substr(0, equals);
    // An id is text even where it has digits only.
    const json value =
        key == "quic-id" ? json(part.substr(equals + 1)) : scalar(part.substr(equals + 1));
    if (const std::size_t dot = key.find('.'); dot != std::string::npos)
      out[key.substr(0, dot)][key.substr(dot + 1)] = value;
    else
      out[key] = value;
    at = comma + 1;
  }
  return out;
}

// list_of() reads "192.0.2.0/24,198.51.100.7".
json list_of(const std::string& text) {
  json out = json::array();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

struct service_options {
  std::string name;
  std::optional<std::string> address, protocol, port, scheduler, forward, health;
  std::optional<std::string> client_address, mss_clamp, persistence, quic, limits;
  std::optional<std::string> agent, heartbeat, weights, quorum;
  std::optional<std::string> allow, deny, allow_file, deny_file;
  std::optional<int> table_size;
  std::optional<bool> echo;
  std::vector<std::string> backends;
  std::string reason, expected;
};

struct backend_options {
  std::string service, address, reason, expected;
  std::optional<int> weight, tier;
  std::optional<std::string> port, dscp, quic_id, max_connections;
  std::optional<bool> sorry;
};

// add_revision_options() gives a change what is kept with it, and what it depends on.
template <class Options>
void add_revision_options(CLI::App& sub, Options& o) {
  sub.add_option("--reason", o.reason, "kept with the revision")->type_name("TEXT");
  sub.add_option("--if-revision", o.expected, "refuse if this is no longer the newest revision")
      ->type_name("N")
      ->check(revision_number());
}

void add_service_keys(CLI::App& sub, service_options& o) {
  sub.add_option("NAME", o.name, "the service")->required()->check(not_empty());
  sub.add_option("--address", o.address, "the VIP")->type_name("IP");
  sub.add_option("--protocol", o.protocol, "tcp or udp");
  sub.add_option("--port", o.port, "443, 8000-8100 or any");
  sub.add_option("--scheduler", o.scheduler,
                 "maglev, ring-hash, partitioned-hash, source-hash, [weighted-]round-robin, "
                 "[weighted-]random or [weighted-]least-connections");
  sub.add_option("--table-size", o.table_size, "slots of the table, a prime");
  sub.add_option("--forward", o.forward, "ipip, gue, gre, dsr-l2, dsr-dscp, nat or full-nat");
  sub.add_option("--client-address", o.client_address, "full-nat: none, proxy-v2 or toa");
  sub.add_option("--mss-clamp", o.mss_clamp, "off, auto or a number of bytes");
  sub.add_option("--echo", o.echo, "answer pings to the address: true or false");
  sub.add_option("--persistence", o.persistence, "timeout=5m,ipv4-prefix=24,... or off");
  sub.add_option("--quic", o.quic, "server-id-length=4, or off");
  sub.add_option("--limits", o.limits,
                 "new-connections=N,packets=N,syn-flood=N,per-source.new-connections=N,... or off");
  sub.add_option("--allow", o.allow, "PREFIX[,PREFIX...]; empty: everybody");
  sub.add_option("--deny", o.deny, "PREFIX[,PREFIX...]; empty: nobody");
  sub.add_option("--allow-file", o.allow_file, "a file of prefixes on the node, or none");
  sub.add_option("--deny-file", o.deny_file, "a file of prefixes on the node, or none");
  sub.add_option("--agent", o.agent, "port=9777,interval=2s,... or off");
  sub.add_option("--heartbeat", o.heartbeat, "interval=5s,missing=3, or off");
  sub.add_option("--weights", o.weights, "smoothing=10s,dead-band=5,max-step=25,interval=2s");
  sub.add_option("--quorum", o.quorum, "percent=50,hysteresis=10,hold=10s, or off");
  sub.add_option("--health", o.health, "type=http,path=/healthz,port=80,interval=2s,...");
  add_revision_options(sub, o);
}

json service_body(const service_options& o) {
  json body = json::object();
  const auto put = [&body](const char* key, const auto& value) {
    if (value) body[key] = *value;
  };
  put("address", o.address);
  put("protocol", o.protocol);
  if (o.port) body["port"] = scalar(*o.port);
  put("scheduler", o.scheduler);
  put("table-size", o.table_size);
  put("forward", o.forward);
  put("client-address", o.client_address);
  if (o.mss_clamp) body["mss-clamp"] = scalar(*o.mss_clamp);
  put("echo", o.echo);
  const auto put_map = [&body](const char* key, const auto& text) {
    if (text) body[key] = *text == "off" ? json(*text) : key_values("--" + std::string{key}, *text);
  };
  put_map("persistence", o.persistence);
  put_map("quic", o.quic);
  put_map("limits", o.limits);
  put_map("agent", o.agent);
  put_map("heartbeat", o.heartbeat);
  put_map("weights", o.weights);
  put_map("quorum", o.quorum);
  put_map("health", o.health);
  if (o.allow) body["allow"] = list_of(*o.allow);
  if (o.deny) body["deny"] = list_of(*o.deny);
  put("allow-file", o.allow_file);
  put("deny-file", o.deny_file);
  return body;
}

std::string backend_path(const backend_options& o) {
  return "/v1/services/" + percent_encode(o.service) + "/backends/" + percent_encode(o.address);
}

template <class Options>
client connect(const context& c, const Options& o) {
  client api = c.connect();
  api.set_reason(o.reason);
  api.set_expected(o.expected);
  return api;
}

}  // namespace

void register_objects(CLI::App& app, context& c) {
  static service_options s;
  CLI::App* service =
      app.add_subcommand("service",
                         "Add, set or remove one service.\n"
                         "Example: sluice service set web --health type=http,path=/healthz");
  service->require_subcommand(1);

  CLI::App* add = service->add_subcommand(
      "add",
      "Add a service.\nExample: sluice service add web --address 198.51.100.10 --protocol tcp "
      "--port 443 --forward ipip --backend 10.0.1.11,weight=100 --backend 10.0.1.12");
  add_service_keys(*add, s);
  add->add_option("--backend", s.backends,
                  "ADDRESS[,weight=N][,tier=N][,port=N][,...]; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  add_output(*add, c);
  add->callback([&c] {
    json body = json{{"name", s.name}};
    body.update(service_body(s));
    json backends = json::array();
    for (const std::string& b : s.backends) {
      const std::size_t comma = b.find(',');
      json one{{"address", b.substr(0, comma)}};
      if (comma != std::string::npos) one.update(key_values("--backend", b.substr(comma + 1)));
      backends.push_back(one);
    }
    if (!backends.empty()) body["backends"] = backends;
    print_changes(c, connect(c, s).post("/v1/services", body), false);
  });

  CLI::App* set = service->add_subcommand("set",
                                          "Change keys of a service; the others stay.\n"
                                          "Example: sluice service set web --port 8443");
  add_service_keys(*set, s);
  add_output(*set, c);
  set->callback([&c] {
    const json body = service_body(s);
    if (body.empty()) throw CLI::RequiredError("at least one key to set");
    print_changes(c, connect(c, s).patch("/v1/services/" + percent_encode(s.name), body), false);
  });

  CLI::App* remove = service->add_subcommand(
      "remove", "Remove a service and all that belongs to it.\nExample: sluice service remove web");
  remove->add_option("NAME", s.name, "the service")->required()->check(not_empty());
  add_revision_options(*remove, s);
  add_output(*remove, c);
  remove->callback([&c] {
    print_changes(c, connect(c, s).remove("/v1/services/" + percent_encode(s.name)), false);
  });

  static backend_options b;
  CLI::App* backend = app.add_subcommand("backend",
                                         "Add, set, drain or remove one backend.\n"
                                         "Example: sluice backend drain web 10.0.1.12");
  backend->require_subcommand(1);
  const auto sub = [&](const char* name, const char* help, bool keys) {
    CLI::App* a = backend->add_subcommand(name, help);
    a->add_option("SERVICE", b.service, "the service's name")->required()->check(not_empty());
    a->add_option("ADDRESS", b.address, "the backend's address")->required()->check(not_empty());
    if (keys) {
      a->add_option("--weight", b.weight, "0 to 65535; 0: no new connections");
      a->add_option("--tier", b.tier, "0: primary; higher: only when lower tiers fall short");
      a->add_option("--port", b.port, "nat, full-nat: destination port, or none");
      a->add_option("--dscp", b.dscp, "dsr-dscp: 1 to 63");
      a->add_option("--quic-id", b.quic_id,
                    "server id in QUIC connection ids, hexadecimal, or none");
      a->add_option("--max-connections", b.max_connections, "no new ones above it, or none");
      a->add_option("--sorry", b.sorry, "serves only when nobody else can: true or false");
    }
    add_revision_options(*a, b);
    add_output(*a, c);
    return a;
  };
  const auto body_of_backend = [](json body) {
    if (b.weight) body["weight"] = *b.weight;
    if (b.tier) body["tier"] = *b.tier;
    if (b.port) body["port"] = scalar(*b.port);
    if (b.dscp) body["dscp"] = scalar(*b.dscp);
    if (b.quic_id) body["quic-id"] = *b.quic_id;
    if (b.max_connections) body["max-connections"] = scalar(*b.max_connections);
    if (b.sorry) body["sorry"] = *b.sorry;
    return body;
  };

  sub("add", "Add a backend.\nExample: sluice backend add web 10.0.1.13 --weight 50", true)
      ->callback([&c, body_of_backend] {
        print_changes(c,
                      connect(c, b).post("/v1/services/" + percent_encode(b.service) + "/backends",
                                         body_of_backend(json{{"address", b.address}})),
                      false);
      });
  sub("set",
      "Change keys of a backend; the others stay.\nExample: sluice backend set web 10.0.1.13 "
      "--weight 100",
      true)
      ->callback([&c, body_of_backend] {
        const json body = body_of_backend(json::object());
        if (body.empty()) throw CLI::RequiredError("at least one key to set");
        print_changes(c, connect(c, b).patch(backend_path(b), body), false);
      });
  sub("drain",
      "No new connections; those that it has go on.\nExample: sluice backend drain web 10.0.1.13",
      false)
      ->callback([&c] {
        print_changes(c, connect(c, b).post(backend_path(b) + "/drain", json::object()), false);
      });
  sub("undrain", "Take new connections again.\nExample: sluice backend undrain web 10.0.1.13",
      false)
      ->callback([&c] {
        print_changes(c, connect(c, b).post(backend_path(b) + "/undrain", json::object()), false);
      });
  static std::string forced;
  CLI::App* force =
      sub("force",
          "Count a backend as up or down whatever its health checks say; none: no longer.\n"
          "Example: sluice backend force web 10.0.1.13 down --reason \"disk is full\"",
          false);
  force->add_option("STATE", forced, "up, down or none")
      ->required()
      ->check(CLI::IsMember({"up", "down", "none"}));
  force->callback([&c] {
    const json body{{"admin", forced == "none" ? "enabled" : forced}};
    print_changes(c, connect(c, b).patch(backend_path(b), body), false);
  });
  sub("remove",
      "Remove a backend; its connections move to others.\n"
      "Example: sluice backend remove web 10.0.1.13",
      false)
      ->callback([&c] { print_changes(c, connect(c, b).remove(backend_path(b)), false); });
}

}  // namespace sluice::cli
