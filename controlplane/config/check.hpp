// SPDX-License-Identifier: Apache-2.0
// Checks of meaning, shared by what comes from text (which has lines) and what does not.
#pragma once

#include <string>
#include <vector>

#include "controlplane/config/config.hpp"

namespace sluice::config {

// backend_origin: where a backend was written.
struct backend_origin {
  std::string path;        // "services[0].backends[1]"
  unsigned line{};         // of its address
  bool address_ok{false};  // its address could be read
};

// valid_service_name() tells whether this is 1 to 48 of a-z, 0-9, '.', '_', '-',
// beginning with a letter or digit.
[[nodiscard]] bool valid_service_name(std::string_view name) noexcept;

// service_origin: where a service was written. A field that is not there has the line
// of the service.
struct service_origin {
  std::string path;  // "services[0]"; empty: the text is the service
  unsigned line{};
  unsigned name{}, address{}, port{}, forward{}, table_size{}, health{};
  bool name_ok{true}, address_ok{true}, port_ok{true};
  // Parallel to the service's backends; empty when they were not in the text.
  std::vector<backend_origin> backends;
};

// origins is parallel to services, or empty: then keys name the objects and there are
// no lines.
void check_services(const std::vector<model::service>& services,
                    const std::vector<service_origin>& origins, unsigned list_line,
                    const context& node, yaml::error_list& errors);
// check_service() checks one service alone.
void check_service(const model::service& s, const service_origin* origin, const context& node,
                   yaml::error_list& errors);

}  // namespace sluice::config
