// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/shown_tables.hpp"

#include "controlplane/publish/recover.hpp"

namespace sluice::publish {

shown_tables shown_tables::copy(const abi::config_view& view) {
  shown_tables out;
  if (view.empty()) return out;
  out.header = view.header();
  for (std::uint32_t i = 0; i <= out.header.vip_mask; ++i)
    if (view.vip_at(i).protocol != 0) out.vips.push_back(view.vip_at(i));
  const std::uint32_t services = out.header.service_count;
  const std::uint32_t backends = out.header.backend_count;
  out.services.resize(services);
  for (std::uint32_t i = 0; i < services; ++i) {
    const auto* row = view.service(abi::service_id{static_cast<std::uint16_t>(i)});
    out.services[i].self = abi::no_service;
    if (row != nullptr) out.services[i] = *row;
  }
  if (services != 0) {
    const abi::service_cold* first = view.cold(abi::service_id{0});
    out.service_colds.assign(first, first + services);
  }
  if (backends != 0) {
    const abi::backend_row* rows = view.backend_at(0);
    out.backends.assign(rows, rows + backends);
    const abi::backend_cold* colds = view.cold(abi::backend_ref::make(0, 0));
    out.backend_colds.assign(colds, colds + backends);
  }
  return out;
}

auto shown_tables::index() const -> index_type {
  index_type out;
  for (std::uint32_t i = 0; i < services.size(); ++i)
    if (services[i].self != abi::no_service)
      out.services.emplace(service_name(service_colds[i]), i);
  for (std::uint32_t i = 0; i < backends.size(); ++i)
    if ((backends[i].flags & abi::backend_in_use) != 0)
      out.backends.emplace(
          index_key{static_cast<std::uint32_t>(backends[i].service), backends[i].address}, i);
  return out;
}

}  // namespace sluice::publish
