// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/node_file.hpp"

namespace sluice {
namespace {

struct level_word {
  log_level level;
  std::string_view word;
};
constexpr level_word level_words[] = {{log_level::debug, "debug"},
                                      {log_level::info, "info"},
                                      {log_level::warning, "warning"},
                                      {log_level::error, "error"}};

}  // namespace

std::string_view to_string(log_level l) noexcept {
  for (const auto& w : level_words)
    if (w.level == l) return w.word;
  return "info";
}

std::optional<log_level> parse_log_level(std::string_view word) noexcept {
  for (const auto& w : level_words)
    if (w.word == word) return w.level;
  return std::nullopt;
}

std::vector<std::string_view> changed_keys(const node_config& a, const node_config& b) {
  std::vector<std::string_view> out;
  const auto add = [&out](bool same, std::string_view key) {
    if (!same) out.push_back(key);
  };
  add(a.name == b.name, "node.name");
  add(a.runtime_dir == b.runtime_dir, "node.runtime-dir");
  add(a.log == b.log, "node.log-level");
  add(a.hash_seed == b.hash_seed, "cluster.hash-seed");
  add(a.dataplane == b.dataplane, "dataplane");
  const controlplane_config& c = a.controlplane;
  const controlplane_config& d = b.controlplane;
  add(c.state == d.state, "controlplane.state");
  add(c.api_socket == d.api_socket, "controlplane.api.socket");
  add(c.api_mode == d.api_mode, "controlplane.api.mode");
  // What is in the files of a listener, and which they are, can be read again.
  add(c.api_listen.has_value() == d.api_listen.has_value() &&
          (!c.api_listen || c.api_listen->address == d.api_listen->address),
      "controlplane.api.listen.address");
  add(c.metrics_listen == d.metrics_listen, "controlplane.metrics");
  add(c.limits == d.limits, "controlplane.limits");
  add(c.history == d.history, "controlplane.history");
  add(c.checks == d.checks, "controlplane.checks");
  add(c.announce == d.announce, "controlplane.announce");
  add(c.kubernetes == d.kubernetes, "controlplane.kubernetes");
  add(c.backup == d.backup, "controlplane.backup");
  return out;
}

}  // namespace sluice
