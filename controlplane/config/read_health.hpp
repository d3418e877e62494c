// SPDX-License-Identifier: Apache-2.0
// How a service's backends are checked, from YAML.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "controlplane/model/health.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::config {

// read_health() reads the map `health`. With a base, keys that are absent keep its values.
void read_health(const yaml::value& v, const model::health_check* base, model::health_check& out);

// parse_health() reads text that is such a map.
[[nodiscard]] tl::expected<model::health_check, std::vector<config_error>> parse_health(
    std::string_view text, std::string_view file_name, const model::health_check* base = nullptr);

// read_address() reads an IP address.
[[nodiscard]] std::optional<ip_address> read_address(const yaml::value& v);
// read_span() reads "8000-8100" or one number, within the bounds.
[[nodiscard]] std::optional<std::pair<std::uint16_t, std::uint16_t>> read_span(
    const yaml::value& v, unsigned min, unsigned max, std::string_view expected);

}  // namespace sluice::config
