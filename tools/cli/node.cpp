// SPDX-License-Identifier: Apache-2.0
// node drain, undrain, ready: what is asked of this node alone.
#include <iostream>
#include <string>
#include <vector>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

// why_not_ready() is what speaks against traffic for this node; empty: nothing.
std::vector<std::string> why_not_ready(client& api, const std::vector<std::string>& names) {
  std::vector<std::string> why;
  const json status = api.get("/v1/status");
  if (const json drained = status.value("drained", json{}); drained.is_object())
    why.push_back("the node is drained by " + drained.value("author", ""));
  const json plane = status.value("dataplane", json::object());
  if (const std::string state = plane.value("state", ""); state != "running")
    why.push_back("the data plane is " + state);
  else if (plane.value("generation", json{}) == json(0))
    why.emplace_back("the data plane has no tables yet");
  for (const std::string& name : names)
    if (api.get("/v1/services/" + percent_encode(name)).value("state", "") == "down")
      why.push_back("no backend of " + name + " can serve");
  const json services = status.value("services", json::object());
  if (names.empty() && services.value("total", 0) == services.value("down", 0))
    why.emplace_back(services.value("total", 0) == 0 ? "there are no services"
                                                     : "no service has a backend that can serve");
  return why;
}

}  // namespace

void register_node(CLI::App& app, context& c) {
  static std::string reason;
  CLI::App* node = app.add_subcommand("node",
                                      "Take this node out of service, or back in; is it fit?\n"
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

  static std::vector<std::string> names;
  CLI::App* ready = node->add_subcommand(
      "ready",
      "Tell whether this node should get traffic: exit code 0, or 1 and why not. It should while "
      "its\n"
      "data plane forwards, it is not drained, and each of the services named, or some service, "
      "has "
      "a\n"
      "backend that can serve. For keepalived's vrrp_script and the like (docs/announce.md).\n"
      "Example: sluice node ready web");
  ready->add_option("SERVICE", names, "services that have to be able to serve")->check(not_empty());
  ready->callback([&c] {
    client api = c.connect();
    const auto why = why_not_ready(api, names);
    if (why.empty()) {
      std::cout << "ready\n";
      return;
    }
    std::string all;
    for (const std::string& w : why) all += (all.empty() ? "" : "; ") + w;
    throw failure("not ready: " + all);
  });
}

}  // namespace sluice::cli
