// SPDX-License-Identifier: Apache-2.0
// Which address of this host a probe through the data path has as its source: the backend
// answers there, straight, by its own routes. Any thread; asks the kernel.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/abi/net_types.hpp"

namespace sluice::reconcile {

struct host_address {
  ip_address address;
  int ifindex{};  // of the interface that has it
};

// host_addresses() are those of this network namespace.
[[nodiscard]] std::vector<host_address> host_addresses();

// find_probe_source() returns, of the VIP's family: the address that the kernel would send from
// to the backend (or, where that is of the other family, to the VIP) by that interface, or by
// any; else the first of the interface, else of any, that `usable` does not refuse. Loopback and
// link-local addresses never, and none that is not in `host`.
[[nodiscard]] std::optional<host_address> find_probe_source(
    const std::string& interface, const ip_address& backend, const ip_address& vip,
    const std::vector<host_address>& host, const std::function<bool(const ip_address&)>& usable);

}  // namespace sluice::reconcile
