// SPDX-License-Identifier: Apache-2.0
// shown_tables: a copy of the rows of a generation, for showing to people what the
// workers use. Taken by the writer's thread; a plain value afterwards.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/publish/config_segment.hpp"

namespace sluice::publish {

struct shown_tables {
  abi::generation_header header{};  // number 0: nothing was published yet
  std::vector<abi::vip_row> vips;   // in use
  std::vector<abi::service_row> services;
  std::vector<abi::service_cold> service_colds;
  std::vector<abi::backend_row> backends;
  std::vector<abi::backend_cold> backend_colds;

  [[nodiscard]] static shown_tables copy(const abi::config_view& view);

  // index() maps (service name, backend address) to backend rows.
  using index_key = std::pair<std::uint32_t, ip_address>;
  struct index_type {
    std::map<std::string, std::uint32_t, std::less<>> services;
    std::map<index_key, std::uint32_t> backends;
  };
  [[nodiscard]] index_type index() const;
};

}  // namespace sluice::publish
