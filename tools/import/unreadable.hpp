// SPDX-License-Identifier: Apache-2.0
// What a services.yaml could not hold of what another balancer was configured by.
#pragma once

#include <string_view>

#include "dataplane/abi/utf8.hpp"

namespace sluice::importing {

// unreadable() says it of a word or a line; "": nothing.
inline std::string_view unreadable(std::string_view text) {
  const auto fault = fault_in(text);
  if (!fault) return {};
  return fault->is_control ? "holds a control character"
                           : "is not valid UTF-8; iconv(1) converts a file";
}

}  // namespace sluice::importing
