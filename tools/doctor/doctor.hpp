// SPDX-License-Identifier: Apache-2.0
// What of a host stands in the way of a balancer: looks at /sys and /proc, changes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/model/model.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::doctor {

enum class level : std::uint8_t { ok, warn, fail };

struct finding {
  doctor::level level{doctor::level::ok};
  std::string check;    // "hugepages"
  std::string subject;  // a port, an address; empty: the host
  std::string seen;
  std::string right;  // what would be right; empty: it is
};

struct question {
  std::string root{"/"};                       // where sys/ and proc/ are
  const node_config* node{nullptr};            // null: none is known
  const model::desired_state* state{nullptr};  // likewise
};

// examine() is the whole list, in a fixed order.
[[nodiscard]] std::vector<finding> examine(const question& q);

[[nodiscard]] std::string_view to_string(level l) noexcept;

}  // namespace sluice::doctor
