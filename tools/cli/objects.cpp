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

// key_values() reads "type=http,path=/healthz,interval=2s".
json key_values(const std::string& option, const std::string& text) {
  json out = json::object();
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, comma - at);
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos || equals == 0)
      throw CLI::ValidationError(option, "wants key=value[,key=value...], not \"" + part + "\"");
    out[part.substr(0, equals)] = scalar(part.substr(equals + 1));
    at = comma + 1;
  }
  return out;
}

struct service_options {
  std::string name;
  std::optional<std::string> address, protocol, port, scheduler, forward, health;
  std::optional<int> table_size;
  std::vector<std::string> backends;
  std::string reason;
};

struct backend_options {
  std::string service, address, reason;
  std::optional<int> weight, tier;
};

void add_service_keys(CLI::App& sub, service_options& o) {
  sub.add_option("NAME", o.name, "the service")->required()->check(not_empty());
  sub.add_option("--address", o.address, "the VIP")->type_name("IP");
  sub.add_option("--protocol", o.protocol, "tcp or udp");
  sub.add_option("--port", o.port, "443, 8000-8100 or any");
  sub.add_option("--scheduler", o.scheduler, "maglev");
  sub.add_option("--table-size", o.table_size, "slots of the table, a prime");
  sub.add_option("--forward", o.forward, "ipip or dsr-l2");
  sub.add_option("--health", o.health, "type=http,path=/healthz,port=80,interval=2s,...");
  sub.add_option("--reason", o.reason, "kept with the revision")->type_name("TEXT");
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
  if (o.health) body["health"] = key_values("--health", *o.health);
  return body;
}

std::string backend_path(const backend_options& o) {
  return "/v1/services/" + percent_encode(o.service) + "/backends/" + percent_encode(o.address);
}

client connect(const context& c, const std::string& reason) {
  client api = c.connect();
  api.set_reason(reason);
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
  add->add_option("--backend", s.backends, "ADDRESS[,weight=N][,tier=N]; may be repeated")
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
    print_changes(c, connect(c, s.reason).post("/v1/services", body), false);
  });

  CLI::App* set = service->add_subcommand("set",
                                          "Change keys of a service; the others stay.\n"
                                          "Example: sluice service set web --port 8443");
  add_service_keys(*set, s);
  add_output(*set, c);
  set->callback([&c] {
    const json body = service_body(s);
    if (body.empty()) throw CLI::RequiredError("at least one key to set");
    print_changes(c, connect(c, s.reason).patch("/v1/services/" + percent_encode(s.name), body),
                  false);
  });

  CLI::App* remove = service->add_subcommand(
      "remove", "Remove a service and all that belongs to it.\nExample: sluice service remove web");
  remove->add_option("NAME", s.name, "the service")->required()->check(not_empty());
  remove->add_option("--reason", s.reason, "kept with the revision")->type_name("TEXT");
  add_output(*remove, c);
  remove->callback([&c] {
    print_changes(c, connect(c, s.reason).remove("/v1/services/" + percent_encode(s.name)), false);
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
    }
    a->add_option("--reason", b.reason, "kept with the revision")->type_name("TEXT");
    add_output(*a, c);
    return a;
  };
  const auto body_of_backend = [](json body) {
    if (b.weight) body["weight"] = *b.weight;
    if (b.tier) body["tier"] = *b.tier;
    return body;
  };

  sub("add", "Add a backend.\nExample: sluice backend add web 10.0.1.13 --weight 50", true)
      ->callback([&c, body_of_backend] {
        print_changes(c,
                      connect(c, b.reason)
                          .post("/v1/services/" + percent_encode(b.service) + "/backends",
                                body_of_backend(json{{"address", b.address}})),
                      false);
      });
  sub("set", "Change weight or tier.\nExample: sluice backend set web 10.0.1.13 --weight 100", true)
      ->callback([&c, body_of_backend] {
        const json body = body_of_backend(json::object());
        if (body.empty()) throw CLI::RequiredError("--weight or --tier");
        print_changes(c, connect(c, b.reason).patch(backend_path(b), body), false);
      });
  sub("drain",
      "No new connections; those that it has go on.\nExample: sluice backend drain web 10.0.1.13",
      false)
      ->callback([&c] {
        print_changes(c, connect(c, b.reason).post(backend_path(b) + "/drain", json::object()),
                      false);
      });
  sub("undrain", "Take new connections again.\nExample: sluice backend undrain web 10.0.1.13",
      false)
      ->callback([&c] {
        print_changes(c, connect(c, b.reason).post(backend_path(b) + "/undrain", json::object()),
                      false);
      });
  sub("remove",
      "Remove a backend; its connections move to others.\n"
      "Example: sluice backend remove web 10.0.1.13",
      false)
      ->callback([&c] { print_changes(c, connect(c, b.reason).remove(backend_path(b)), false); });
}

}  // namespace sluice::cli
