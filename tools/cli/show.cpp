// SPDX-License-Identifier: Apache-2.0
// status, get ...: what is there.
#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

std::string percent(const json& v) {
  return v.is_number() ? fmt::format("{:.2f}%", v.get<double>() * 100.0) : std::string{"-"};
}

column share(std::string title, const char* key) {
  return {std::move(title),
          [key](const json& o) { return o.contains(key) ? percent(o[key]) : std::string{"-"}; },
          true};
}

std::string text(const json& o, const char* key) {
  return o.contains(key) ? cell_of(o[key]) : std::string{"-"};
}

column up_of_total() {
  return {"BACKENDS UP",
          [](const json& o) { return text(o, "backends_up") + "/" + text(o, "backends_total"); },
          true};
}

const std::vector<column>& service_columns() {
  static const std::vector<column> columns{
      field("NAME", "name"),          field("ADDRESS", "address"), field("PROTOCOL", "protocol"),
      field("PORT", "port"),          field("FORWARD", "forward"), field("SCHEDULER", "scheduler"),
      field("HEALTH", "health.type"), field("STATE", "state"),     up_of_total()};
  return columns;
}

// admin_text() says who drained or forced a backend, and when: "down (alice, 2026-...)".
std::string admin_text(const json& o) {
  std::string out = text(o, "admin");
  if (o.contains("admin_set") && o["admin_set"].is_object()) {
    const json& by = o["admin_set"];
    const std::string author = by.value("author", "");
    out += " (" + (author.empty() ? "unknown" : author) + ", " + by.value("time", "") + ")";
  }
  return out;
}

// ago() is " 1.2s ago"; empty: it never was, or not since the start.
std::string ago(const json& o) {
  const json age = o.value("age_ms", json{});
  return age.is_number() ? fmt::format(" {:.1f}s ago", age.get<double>() / 1000) : std::string{};
}

// says() is what a backend says of itself: "agent 75% 1.2s ago; beat alive load 0.4 0.3s ago".
std::string says(const json& o) {
  std::string out;
  if (const json a = o.value("agent", json{}); a.is_object()) {
    const std::string problem = a.value("problem", "");
    out = "agent " + (problem.empty() ? a.value("line", "") : "(" + problem + ")") + ago(a);
  }
  if (const json h = o.value("heartbeat", json{}); h.is_object()) {
    out += (out.empty() ? "beat " : "; beat ") + h.value("state", "");
    if (h.value("load", json{}).is_number())
      out += fmt::format(" load {}", h["load"].get<double>());
    out += ago(h);
  }
  return out.empty() ? "-" : out;
}

const std::vector<column>& backend_columns() {
  static const std::vector<column> columns{field("SERVICE", "service"),
                                           field("ADDRESS", "address"),
                                           number("WEIGHT", "weight"),
                                           number("EFFECTIVE", "effective_weight"),
                                           share("SHARE", "share"),
                                           number("TIER", "tier"),
                                           field("HEALTH", "health"),
                                           field("SOURCE", "source"),
                                           {"ADMIN", admin_text},
                                           field("STANDING", "standing"),
                                           field("NEXT HOP", "next_hop.mac"),
                                           field("PORT", "next_hop.port"),
                                           number("CONNECTIONS", "connections"),
                                           number("PACKETS", "packets"),
                                           {"SAYS", says},
                                           field("LAST CHECK", "health_text")};
  return columns;
}

void get_list(const context& c, const char* what, const std::vector<column>& columns,
              const query& q, const std::string& when_empty) {
  const json answer = c.connect().get(std::string{"/v1/"} + what, q);
  if (c.output != format::table) {
    print_object(std::cout, c.output, answer);
    return;
  }
  print_table(std::cout, columns, answer.value(what, json::array()), when_empty);
}

void print_status(const json& s) {
  print_pairs(
      std::cout,
      {{"node",
        [](const json& o) {
          const json d = o.value("drained", json{});
          return text(o, "node") +
                 (d.is_object()
                      ? fmt::format(
                            " (drained by {}, {}{})",
                            d.value("author", "").empty() ? "unknown" : d.value("author", ""),
                            d.value("time", ""),
                            d.value("reason", "").empty() ? "" : ": " + d.value("reason", ""))
                      : std::string{});
        }},
       field("version", "version"),
       field("revision", "revision"),
       field("generation", "generation"),
       field("table digest", "digest"),
       {"data plane",
        [](const json& o) {
          const json d = o.value("dataplane", json::object());
          std::string line = text(d, "state");
          if (line != "absent")
            line += fmt::format(" (pid {}, {} workers, generation {}, heartbeat {} ms ago)",
                                text(d, "pid"), text(d, "workers"), text(d, "generation"),
                                text(d, "heartbeat_age_ms"));
          return line;
        }},
       {"services",
        [](const json& o) {
          const json v = o.value("services", json::object());
          return fmt::format("{}: {} up, {} degraded, {} down", text(v, "total"), text(v, "up"),
                             text(v, "degraded"), text(v, "down"));
        }},
       {"backends",
        [](const json& o) {
          const json v = o.value("backends", json::object());
          return fmt::format("{}: {} up, {} down, {} draining, {} not yet known", text(v, "total"),
                             text(v, "up"), text(v, "down"), text(v, "draining"),
                             text(v, "unknown"));
        }},
       {"connections",
        [](const json& o) {
          const json v = o.value("connections", json::object());
          return fmt::format("{} tracked, room for {}", text(v, "tracked"), text(v, "capacity"));
        }}},
      s);
  for (const json& w : s.value("warnings", json::array()))
    std::cout << "warning: " << cell_of(w) << "\n";
}

void get_service(const context& c, const std::string& name) {
  const json s = c.connect().get("/v1/services/" + percent_encode(name));
  if (c.output != format::table) {
    print_object(std::cout, c.output, s);
    return;
  }
  print_table(std::cout, service_columns(), json::array({s}), "");
  // Limits, lists and what else only some services ask for.
  const json options = s.value("options", json::object());
  if (!options.empty()) {
    std::cout << "\n";
    std::vector<column> lines;
    const json flat = options.flatten();
    for (const auto& [path, value] : flat.items()) {
      std::string label = path.substr(1);
      std::replace(label.begin(), label.end(), '/', '.');
      lines.push_back({label, [value = cell_of(value)](const json&) { return value; }});
    }
    print_pairs(std::cout, lines, s);
  }
  std::cout << "\n";
  print_table(std::cout, backend_columns(), s.value("backends", json::array()), "no backends");
}

}  // namespace

void add_output(CLI::App& command, context& c) {
  command
      .add_option_function<std::string>(
          "-o,--output",
          [&c](const std::string& name) {
            if (name == "table") {
              c.output = format::table;
            } else if (name == "json") {
              c.output = format::json_text;
            } else if (name == "yaml") {
              c.output = format::yaml_text;
            } else {
              throw CLI::ValidationError("--output",
                                         "wants table, json or yaml, not \"" + name + "\"");
            }
          },
          "table, json or yaml")
      ->type_name("FORMAT");
}

CLI::Validator not_empty() {
  return CLI::Validator{[](const std::string& text) {
                          return text.empty() ? std::string{"is empty"} : std::string{};
                        },
                        ""};
}

void register_show(CLI::App& app, context& c) {
  CLI::App* status = app.add_subcommand(
      "status",
      "How this node is: data plane, services, backends.\nExample: sluice status -o json");
  add_output(*status, c);
  status->callback([&c] {
    const json s = c.connect().get("/v1/status");
    if (c.output == format::table) {
      print_status(s);
    } else {
      print_object(std::cout, c.output, s);
    }
  });

  CLI::App* get =
      app.add_subcommand("get", "List objects.\nExample: sluice get backends web -o json");
  get->require_subcommand(1);
  const auto list = [&](const char* what, const char* help, const std::vector<column>& columns,
                        const char* when_empty) {
    CLI::App* sub = get->add_subcommand(what, help);
    add_output(*sub, c);
    sub->callback([&c, what, &columns, when_empty] { get_list(c, what, columns, {}, when_empty); });
  };

  CLI::App* services =
      get->add_subcommand("services",
                          "Services and how they are; with NAME, one with its backends.\n"
                          "Example: sluice get services web");
  static std::string service_name;
  services->add_option("NAME", service_name, "one service")->check(not_empty());
  add_output(*services, c);
  services->callback([&c] {
    if (!service_name.empty()) return get_service(c, service_name);
    get_list(c, "services", service_columns(), {}, "no services");
  });

  CLI::App* backends = get->add_subcommand(
      "backends",
      "Backends: weight, share of the table, health, next hop, as the data plane has them.\n"
      "Example: sluice get backends web");
  static std::string of_service;
  backends->add_option("SERVICE,--service", of_service, "only of this service")->check(not_empty());
  add_output(*backends, c);
  backends->callback([&c] {
    get_list(c, "backends", backend_columns(),
             of_service.empty() ? query{} : query{{"service", of_service}}, "no backends");
  });

  static const std::vector<column> node_columns{
      field("NAME", "name"), field("STATE", "state"), number("REVISION", "revision"),
      number("GENERATION", "generation"), field("DIGEST", "digest")};
  list("nodes", "Nodes and the tables they run.\nExample: sluice get nodes", node_columns,
       "no nodes");

  static const std::vector<column> worker_columns{field("ID", "id"),
                                                  field("STATE", "state"),
                                                  number("CPU", "cpu"),
                                                  number("NUMA", "numa_node"),
                                                  field("PORTS", "ports"),
                                                  number("QUEUE", "queue"),
                                                  number("GENERATION", "generation"),
                                                  share("BUSY", "busy"),
                                                  number("CONNECTIONS", "connections"),
                                                  number("ADOPTED", "adopted"),
                                                  number("CAPACITY", "capacity"),
                                                  number("RX", "rx_packets"),
                                                  number("TX", "tx_packets"),
                                                  field("PLACEMENT", "placement")};
  list("workers", "Workers, where they run and why.\nExample: sluice get workers", worker_columns,
       "no workers: the data plane is not running");

  static const std::vector<column> port_columns{field("NAME", "name"),
                                                field("DEVICE", "device"),
                                                field("DRIVER", "driver"),
                                                field("MAC", "mac"),
                                                number("MTU", "mtu"),
                                                field("LINK", "link"),
                                                number("RXQ", "rx_queues"),
                                                number("TXQ", "tx_queues"),
                                                field("REST TO KERNEL", "rest_to_kernel"),
                                                number("RX", "rx_packets"),
                                                number("TX", "tx_packets"),
                                                number("MISSED", "rx_missed"),
                                                number("BY STAND-IN", "standin_forwarded"),
                                                field("NOTE", "note")};
  list("ports", "Ports of the data plane.\nExample: sluice get ports", port_columns,
       "no ports: the data plane is not running");

  CLI::App* config =
      get->add_subcommand("config",
                          "The desired state, as `apply` takes it (YAML unless -o json); with\n"
                          "--revision as it was.\n"
                          "Example: sluice get config > services.yaml");
  static std::string of_revision;
  config->add_option("--revision", of_revision, "of this revision; the newest if not given")
      ->type_name("N")
      ->check(revision_number());
  add_output(*config, c);
  config->callback([&c] {
    query q;
    if (!of_revision.empty()) q.emplace_back("revision", of_revision);
    if (c.output == format::json_text) {
      print_object(std::cout, c.output, c.connect().get("/v1/config", q));
    } else {
      q.emplace_back("format", "yaml");
      std::cout << c.connect().get_text("/v1/config", q);
    }
  });
}

}  // namespace sluice::cli
