// SPDX-License-Identifier: Apache-2.0
// What the data plane makes of a frame. Apart from frame.hpp, whose names the packet path's
// own tests use, too.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/abi/service_table.hpp"

namespace sluice::test {

inline constexpr std::uint8_t data_plane_port = 1;
inline constexpr mac_address data_plane_mac{2, 0, 0, 0, 0, 0x02};

// by_data_plane() returns the frame that goes to a backend; nothing if none does.
std::optional<std::vector<std::uint8_t>> by_data_plane(const abi::config_view& view,
                                                       const std::vector<std::uint8_t>& frame);

}  // namespace sluice::test
