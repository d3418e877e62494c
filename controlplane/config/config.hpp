// SPDX-License-Identifier: Apache-2.0
// services.yaml, and the API's JSON bodies (JSON is YAML flow syntax), to the model.
// Nothing here has side effects; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/model/model.hpp"
#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::config {

// context: what the node offers. The default refuses nothing for the node's sake: for
// checking a file without a node.
struct context {
  bool encap_ipv4{true};
  bool encap_ipv6{true};
  bool pool_ipv4{true};  // addresses in dataplane.nat-pool
  bool pool_ipv6{true};
  bool probes_through{true};            // a port is an interface of the kernel
  std::optional<std::string> checks{};  // where programs of checks are; empty: off; nothing: any
  std::uint32_t max_services{4096};
  std::uint32_t max_backends{65536};  // of all services together
  std::uint32_t table_memory_mib{0};  // for the lookup tables; 0: not checked

  static context of(const node_config& node);
};

template <class T>
using result = tl::expected<T, std::vector<config_error>>;

// parse_services() reads the text of a services.yaml. file_name is for the errors.
// The state is normalised (model::normalise).
[[nodiscard]] result<model::desired_state> parse_services(std::string_view text,
                                                          std::string_view file_name,
                                                          const context& node);

// parse_service() reads one service, written as an item of services.yaml's list. With a
// base, keys that are absent keep the base's value ("health" too, key by key; "backends"
// is replaced as a whole) and the name cannot change: that is PATCH. Checks the service
// alone; check() sees the others.
[[nodiscard]] result<model::service> parse_service(std::string_view text,
                                                   std::string_view file_name, const context& node,
                                                   const model::service* base = nullptr);

// parse_backend() is the same for one backend; the address cannot change.
[[nodiscard]] result<model::backend> parse_backend(std::string_view text,
                                                   std::string_view file_name,
                                                   const model::backend* base = nullptr);

// parse_backend_list() reads a file that backends are discovered by: a map with one key,
// backends, written as in a service. Whether they fit a service is not looked at.
[[nodiscard]] result<std::vector<model::backend>> parse_backend_list(std::string_view text,
                                                                     std::string_view file_name);

// check() looks at a state as a whole: VIPs that overlap, backends that are VIPs, what
// the node lacks, limits. Empty: all is well. parse_services() has done this already;
// for states put together from parts. The errors carry no line, and keys name the
// service: "services[web].backends[10.0.1.11]".
[[nodiscard]] std::vector<config_error> check(const model::desired_state& state,
                                              const context& node, std::string_view file_name = {});

}  // namespace sluice::config
