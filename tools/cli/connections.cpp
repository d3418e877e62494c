// SPDX-License-Identifier: Apache-2.0
// connections list, count, flush: what the workers' tables hold.
#include <iostream>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

void register_connections(CLI::App& app, context& c) {
  CLI::App* connections = app.add_subcommand(
      "connections", "Tracked connections.\nExample: sluice connections list --service web");
  connections->require_subcommand(1);
  static std::string service;
  static int limit = 1000;

  CLI::App* list = connections->add_subcommand(
      "list", "One line per connection.\nExample: sluice connections list --limit 20");
  list->add_option("--service", service, "only of this service")
      ->type_name("NAME")
      ->check(not_empty());
  list->add_option("--limit", limit, "at most so many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  add_output(*list, c);
  list->callback([&c] {
    query q{{"limit", std::to_string(limit)}};
    if (!service.empty()) q.emplace_back("service", service);
    const json answer = c.connect().get("/v1/connections", q);
    if (c.output != format::table) return print_object(std::cout, c.output, answer);
    print_table(std::cout,
                {field("PROTOCOL", "protocol"), field("SOURCE", "source"),
                 field("DESTINATION", "destination"), field("SERVICE", "service"),
                 field("BACKEND", "backend"), field("STATE", "state"), number("IDLE S", "idle_s"),
                 number("WORKER", "worker")},
                answer.value("connections", json::array()), "no connections");
    if (answer.value("truncated", false))
      std::cerr << "only the first " << limit << " are shown (--limit)\n";
  });

  CLI::App* count = connections->add_subcommand(
      "count", "How many, by state and by service.\nExample: sluice connections count -o json");
  count->add_option("--service", service, "only of this service")
      ->type_name("NAME")
      ->check(not_empty());
  add_output(*count, c);
  count->callback([&c] {
    const json answer = c.connect().get("/v1/connections/count",
                                        service.empty() ? query{} : query{{"service", service}});
    if (c.output != format::table) return print_object(std::cout, c.output, answer);
    json rows = json::array();
    const auto add = [&rows](const std::string& what, const json& n) {
      rows.push_back({{"what", what}, {"count", n}});
    };
    // Named, because items() refers to its object.
    const json by_state = answer.value("by_state", json::object());
    const json by_service = answer.value("by_service", json::object());
    add("total", answer.value("total", json{}));
    for (const auto& [k, v] : by_state.items()) add("  " + k, v);
    for (const auto& [k, v] : by_service.items()) add("service " + k, v);
    print_table(std::cout, {field("CONNECTIONS", "what"), number("COUNT", "count")}, rows, "");
  });

  CLI::App* flush = connections->add_subcommand(
      "flush",
      "Forget tracked connections, of a service or of all: the next packet of each is decided on\n"
      "anew. Connections may break by it; desired state and history are as they were.\n"
      "Example: sluice connections flush --service web");
  flush->add_option("--service", service, "only of this service")
      ->type_name("NAME")
      ->check(not_empty());
  add_output(*flush, c);
  flush->callback([&c] {
    const json answer = c.connect().post("/v1/connections/flush", json::object(),
                                         service.empty() ? query{} : query{{"service", service}});
    if (c.output != format::table) return print_object(std::cout, c.output, answer);
    for (const json& name : answer.value("services", json::array()))
      std::cout << cell_of(name) << ": flushed\n";
    if (answer.value("services", json::array()).empty()) std::cout << "no services\n";
  });
}

}  // namespace sluice::cli
