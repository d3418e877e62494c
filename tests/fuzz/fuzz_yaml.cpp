// SPDX-License-Identifier: Apache-2.0
// Bytes as services.yaml, as bodies of the API and as node.yaml. Beyond not crashing:
// what is accepted survives being written and read again, and what is refused has
// errors that fit into the API's JSON.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/node_file.hpp"
#include "tests/fuzz/require.hpp"

using sluice::test::require;

namespace {

void check_errors(const std::vector<sluice::config_error>& errors) {
  require(!errors.empty(), "a refusal says why");
  require(errors.size() <= sluice::yaml::max_errors + 1, "errors are bounded");
  for (const auto& e : errors) {
    require(!e.message.empty(), "an error has a message");
    require(e.to_string().find('\n') == std::string::npos, "an error is one line");
    (void)nlohmann::json{{"key", e.key}, {"message", e.message}}.dump();  // throws: not UTF-8
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view text{reinterpret_cast<const char*>(data), size};

  const config::context node{.encap_ipv6 = false};
  if (const auto state = config::parse_services(text, "f", node)) {
    require(config::check(*state, node).empty(), "what is read passes the check");
    const auto again = config::parse_services(model::to_yaml(*state), "f", node);
    require(again && *again == *state, "YAML gives the same state back");
    const auto json = config::parse_services(model::to_json(*state).dump(), "f", node);
    require(json && *json == *state, "JSON gives the same state back");
    require(model::diff(*state, *again).empty(), "a state does not differ from itself");
    (void)model::diff({}, *state);
    for (const model::service& s : state->services) {
      const auto same = config::parse_service("{}", "f", node, &s);
      require(same && *same == s, "an empty patch changes nothing");
    }
  } else {
    check_errors(state.error());
  }
  if (const auto s = config::parse_service(text, "f", node); !s) check_errors(s.error());
  if (const auto b = config::parse_backend(text, "f"); !b) check_errors(b.error());
  if (const auto n = parse_node_text(text, "f")) {
    require(!n->name.empty() && !n->controlplane.api_socket.empty(), "defaults are filled in");
  } else {
    check_errors(n.error());
  }
  return 0;
}
