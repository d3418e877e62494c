// SPDX-License-Identifier: Apache-2.0
// What the tests of services.yaml have in common.
#pragma once

#include <string>
#include <string_view>

#include "controlplane/config/config.hpp"

namespace sluice::config {

inline std::string errors_of(std::string_view text, const context& node = {}) {
  const auto s = parse_services(text, "services.yaml", node);
  return s ? "" : to_string(s.error());
}

struct row {
  std::string_view about;
  std::string_view text;
  std::string_view errors;
};

// service() is a valid service in lines 2 to 6, to which a row adds lines from 7 on.
inline std::string service_with(std::string_view lines) {
  return "services:\n"
         "  - name: web\n"
         "    address: 198.51.100.10\n"
         "    port: 443\n"
         "    backends:\n"
         "      - {address: 10.0.1.11}\n" +
         std::string{lines} + "\n";
}

}  // namespace sluice::config
