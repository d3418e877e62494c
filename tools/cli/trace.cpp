// SPDX-License-Identifier: Apache-2.0
// explain and replay: where a packet goes, and why.
#include <iostream>

#include "tools/cli/commands.hpp"
#include "tools/replay/replay.hpp"

namespace sluice::cli {

void register_trace(CLI::App& app, context& c) {
  CLI::App* explain =
      app.add_subcommand("explain",
                         "Which backend a packet goes to, by which rule, through which next hop.\n"
                         "Example: sluice explain --protocol tcp --source 192.0.2.7:40000 "
                         "--destination 198.51.100.10:443");
  static std::string protocol;
  static std::string source;
  static std::string destination;
  explain->add_option("--protocol", protocol, "tcp or udp")
      ->required()
      ->check(CLI::IsMember({"tcp", "udp"}));
  explain->add_option("--source", source, "the client, IP:PORT or [IPV6]:PORT")->required();
  explain->add_option("--destination", destination, "the VIP, IP:PORT or [IPV6]:PORT")->required();
  add_output(*explain, c);
  explain->callback([&c] {
    const json e = c.connect().get(
        "/v1/explain", {{"protocol", protocol}, {"source", source}, {"destination", destination}});
    if (c.output != format::table) return print_object(std::cout, c.output, e);
    // "forwarded to B (service S, by RULE)", "dropped: REASON (...)", "kernel"
    std::cout << protocol << " " << source << " -> " << destination << ": "
              << cell_of(e.value("verdict", json{}));
    const json backend = e.value("backend", json{});
    const json reason = e.value("reason", json{});
    if (reason.is_string()) {
      std::cout << ": " << cell_of(reason);
      if (backend.is_string()) std::cout << ", backend " << cell_of(backend);
    } else if (backend.is_string()) {
      std::cout << " to " << cell_of(backend);
    }
    if (const json service = e.value("service", json{}); service.is_string())
      std::cout << " (service " << cell_of(service) << ", by " << cell_of(e.value("rule", json{}))
                << ")";
    std::cout << "\n";
    for (const json& step : e.value("steps", json::array()))
      std::cout << "  " << cell_of(step) << "\n";
  });

  CLI::App* replay = app.add_subcommand(
      "replay",
      "The real packet path over a capture: no NIC, daemon, hugepages or root. Every\n"
      "backend counts as healthy. Prints one line per packet; writes what would be sent.\n"
      "Example: sluice replay --node node.yaml --services services.yaml --in in.pcap "
      "--out out.pcap");
  static replay_options options;
  replay->add_option("--node", options.node_file, "node.yaml")->required()->type_name("FILE");
  replay->add_option("--services", options.services_file, "services.yaml")
      ->required()
      ->type_name("FILE");
  replay->add_option("--in", options.in_file, "capture to read (pcap or pcapng)")
      ->required()
      ->type_name("FILE");
  replay->add_option("--out", options.out_file, "capture to write")->required()->type_name("FILE");
  replay->callback([&c] {
    if (c.output != format::table)
      throw CLI::ValidationError("--output", "replay prints a line per packet, no objects");
    c.exit_code = run_replay(options, std::cout, std::cerr);
  });
}

}  // namespace sluice::cli
