// SPDX-License-Identifier: Apache-2.0
// What the steering program has to know of a published generation. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "controlplane/bpf_loader/vip_entries.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/net_types.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::bpf_loader {

struct steer_contents {
  std::vector<vip> vips;                   // services, and the addresses of the NAT pool; sorted
  std::vector<vip> nat_sources;            // what `nat` backends answer from; sorted
  std::vector<ip_prefix> encap_sources;    // outer source addresses of our tunnels; sorted
  std::vector<ip_address> host_addresses;  // the host's own; only asked for where there is `nat`
  std::uint16_t gue_port{};                // host order

  bool operator==(const steer_contents&) const = default;
};

// contents_of() reads all but host_addresses out of a generation.
[[nodiscard]] steer_contents contents_of(const abi::config_view& view);

// host_addresses() asks the kernel; of this network namespace.
[[nodiscard]] std::vector<ip_address> host_addresses();

}  // namespace sluice::bpf_loader
