// SPDX-License-Identifier: Apache-2.0
// What the tables say about a flow, copied while they stood still: for explain.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/api/objects.hpp"
#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/abi/service_table.hpp"

namespace sluice::api {

struct flow {
  std::uint8_t protocol{};
  ip_port source;
  ip_port destination;

  [[nodiscard]] std::uint64_t hash(std::uint64_t seed) const noexcept;
};

// found_entry: the flow's connection in a worker's table.
struct found_entry {
  std::uint32_t worker{};
  abi::connection_view entry;
  std::uint16_t idle{};
};

struct facts {
  abi::generation_header header{};
  bool published{};
  std::optional<abi::vip_row> vip;
  std::optional<abi::service_row> service;
  std::optional<abi::service_options> options;  // of a service that has any
  std::string service_name;
  bool allowed{true};  // in the allow list, or there is none
  bool denied{};
  std::uint64_t hash{};               // that the service goes by
  std::optional<std::uint32_t> slot;  // that it names
  abi::backend_ref chosen;            // of the connection, or by the hash
  std::optional<abi::backend_row> backend;
  std::vector<ip_address> members;    // that take new connections; the first few
  std::vector<std::string> quic_ids;  // "0a01: 10.0.1.11"; the first few
  bool moved{};                       // the connection's backend is gone or down
  std::size_t pool{};                 // addresses of full-nat, of the flow's family

  // by_hash() tells whether a new connection's backend follows from the tables alone.
  [[nodiscard]] bool by_hash() const noexcept;
};

// look_up() does with the tables what a worker does. The loop's thread.
[[nodiscard]] facts look_up(const abi::config_view& view, const flow& f,
                            const std::optional<found_entry>& connection);

// find_entry() looks through the workers' connection tables; what is left out goes to `steps`.
[[nodiscard]] std::optional<found_entry> find_entry(const publish::observations& data_plane,
                                                    const flow& f, abi::vip_id vip,
                                                    const abi::generation_header& header,
                                                    json& steps);

}  // namespace sluice::api
