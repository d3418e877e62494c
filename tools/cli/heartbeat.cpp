// SPDX-License-Identifier: Apache-2.0
// heartbeat: what a backend, or somebody beside it, tells the control plane.
#include <optional>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

void register_heartbeat(CLI::App& app, context& c) {
  static std::string address;
  static std::string service;
  static std::optional<std::string> load;
  CLI::App* beat = app.add_subcommand(
      "heartbeat",
      "Say that a backend is alive, to services with heartbeat in services.yaml.\n"
      "Example: sluice heartbeat 10.0.1.11 --load 0.4");
  beat->add_option("ADDRESS", address, "the backend's address")->required()->check(not_empty());
  beat->add_option("--service", service, "only to this service; else to all that expect it");
  beat->add_option("--load", load, "from 0 (idle) to 1 (full)");
  beat->callback([&c] {
    query q{{"backend", address}};
    if (!service.empty()) q.emplace_back("service", service);
    if (load) q.emplace_back("load", *load);
    (void)c.connect().post("/v1/heartbeats", json::object(), q);
  });
}

}  // namespace sluice::cli
