// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/pinned_flows.hpp"

#include <cstring>

#include "dataplane/abi/stateless_choice.hpp"

namespace sluice {
namespace {

ip_address address_at(const __u8* bytes) {
  ip_address a;
  std::memcpy(a.bytes.data(), bytes, a.bytes.size());
  return a;
}

}  // namespace

abi::backend_ref standin_choice(const abi::config_view& view, const abi::service_row& service,
                                const sluice_flow& flow) {
  const std::uint64_t seed = view.header().hash_seed;
  const ip_address source = address_at(flow.source);
  const ip_address destination = address_at(flow.destination);
  const auto flow_hash = [&] {
    if (destination.is_v4())
      return sluice_flow_hash4(seed, source.v4_raw().raw(), destination.v4_raw().raw(),
                               flow.source_port, flow.destination_port, flow.protocol);
    return sluice_flow_hash6(seed, source.high(), source.low(), destination.high(),
                             destination.low(), flow.source_port, flow.destination_port,
                             flow.protocol);
  };
  const std::uint64_t hash =
      abi::choice_hash(view, service, abi::options_of(view, service), source, flow_hash);
  return abi::stateless_choice(view, service, hash);
}

flow_sorter::flow_sorter(const abi::config_view& view) : view_{view} {
  if (view.empty()) return;
  for (std::uint32_t i = 0; i <= view.header().vip_mask; ++i)
    if (const abi::vip_row& row = view.vip_at(i); row.protocol != 0)
      vips_.emplace(static_cast<std::uint16_t>(row.id), row);
}

bool flow_sorter::pinned(const abi::connection_view& connection, sluice_flow& flow) const {
  if (connection.state == abi::connection_state::closed) return false;
  const auto vip = vips_.find(static_cast<std::uint16_t>(connection.vip));
  if (vip == vips_.end()) return false;
  const abi::backend_row* row = view_.backend(connection.backend);
  if (row == nullptr || (row->flags & abi::backend_keeps_connections) == 0) return false;
  const abi::service_row* service =
      view_.find_service(vip->second, connection.destination_port.host());
  if (service == nullptr) return false;
  flow = {};
  std::memcpy(flow.source, connection.source.bytes.data(), sizeof flow.source);
  std::memcpy(flow.destination, vip->second.address.bytes.data(), sizeof flow.destination);
  flow.source_port = connection.source_port.raw();
  flow.destination_port = connection.destination_port.raw();
  flow.protocol = vip->second.protocol;
  return !(standin_choice(view_, *service, flow) == connection.backend);
}

}  // namespace sluice
