// SPDX-License-Identifier: Apache-2.0
// node drain, undrain: what is asked of this node alone.
#include <iostream>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

void register_node(CLI::App& app, context& c) {
  static std::string reason;
  CLI::App* node = app.add_subcommand("node",
                                      "Take this node out of service, or back in.\n"
                                      "Example: sluice node drain --reason \"new kernel\"");
  node->require_subcommand(1);
  const auto add = [&](const char* name, const char* help) {
    CLI::App* sub = node->add_subcommand(name, help);
    sub->add_option("--reason", reason, "kept with it")->type_name("TEXT");
    add_output(*sub, c);
    sub->callback([&c, path = std::string{"/v1/node/"} + name] {
      client api = c.connect();
      api.set_reason(reason);
      const json answer = api.post(path, json::object());
      if (c.output != format::table) return print_object(std::cout, c.output, answer);
      std::cout << answer.value("node", "") << ": " << answer.value("state", "") << "\n";
    });
  };
  add("drain",
      "Its addresses are no longer announced, so that the routers send new packets to other "
      "nodes;\n"
      "what still comes is forwarded. Stays so over restarts, until undrain.\n"
      "Example: sluice node drain --reason \"new kernel\"");
  add("undrain", "Announce its addresses again.\nExample: sluice node undrain");
}

}  // namespace sluice::cli
