// SPDX-License-Identifier: Apache-2.0
// Which connections are not where the stand-in's hash would put them. Pure; any thread.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/abi/service_table.hpp"
#include "dataplane/abi/standin_abi.h"

namespace sluice {

// flow_sorter: one generation of tables, asked about connections.
class flow_sorter {
 public:
  flow_sorter() = default;
  explicit flow_sorter(const abi::config_view& view);
  // look_at() goes on with the same generation where it lies now.
  void look_at(const abi::config_view& view) noexcept { view_ = view; }

  // pinned() tells whether the stand-in must be told of a connection, and fills `flow` in.
  [[nodiscard]] bool pinned(const abi::connection_view& connection, sluice_flow& flow) const;

 private:
  abi::config_view view_;
  std::unordered_map<std::uint16_t, abi::vip_row> vips_;
};

// standin_choice() is the backend that the stand-in chooses, and the data plane for what it
// has no connection of (stateless_choice.hpp).
[[nodiscard]] abi::backend_ref standin_choice(const abi::config_view& view,
                                              const abi::service_row& service,
                                              const sluice_flow& flow);

}  // namespace sluice
