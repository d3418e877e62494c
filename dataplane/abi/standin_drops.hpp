// SPDX-License-Identifier: Apache-2.0
// The stand-in's drop reasons by name, in the order of their counters in steer_stats.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "dataplane/abi/bpf_abi.h"

namespace sluice::abi {

struct standin_drop_info {
  std::string_view name;  // as the CLI and Prometheus show it
  std::string_view text;
};

inline constexpr std::size_t standin_drop_count = SLUICE_STEER_COUNTERS - SLUICE_STANDIN_FIRST_DROP;

inline constexpr std::array<standin_drop_info, standin_drop_count> standin_drop_infos{{
#define SLUICE_STANDIN_DROP(id, name, text) {#name, text},
#include "dataplane/abi/standin_drops.def"
}};

}  // namespace sluice::abi
