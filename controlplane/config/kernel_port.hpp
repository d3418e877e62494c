// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dataplane/abi/node_file.hpp"

namespace sluice::config {

// is_kernel_port(): the kernel sends and receives by the port, too, perhaps by a twin. A PCI
// device without one may be of a bifurcated driver.
[[nodiscard]] inline bool is_kernel_port(const port_config& p) noexcept {
  return p.kind != device_kind::vdev || p.wants_twin();
}

}  // namespace sluice::config
