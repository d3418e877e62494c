// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/bpf/data_plane.hpp"

#include "tests/packet/bench.hpp"

namespace sluice::test {

static_assert(data_plane_port == wire_port && data_plane_mac == bench_ports[wire_port].mac);

std::optional<std::vector<std::uint8_t>> by_data_plane(const abi::config_view& view,
                                                       const std::vector<std::uint8_t>& frame) {
  bench data_plane{view};
  result done = data_plane.run(frame);
  if (done.outcome != verdict::forward) return std::nullopt;
  return std::move(done.frame);
}

}  // namespace sluice::test
