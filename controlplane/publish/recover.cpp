// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/recover.hpp"

#include <algorithm>
#include <utility>

#include "controlplane/publish/list_cache.hpp"
#include "controlplane/schedule/schedule.hpp"
#include "dataplane/abi/generation.hpp"

namespace sluice::publish {
namespace {

using failure = tl::unexpected<std::string>;

counter_sums base_of(const abi::backend_cold& c) {
  return {c.base_packets, c.base_bytes, c.base_opened, c.base_closed, c.base_resets};
}
counter_sums base_of(const abi::service_cold& c) {
  return {c.base_packets, c.base_bytes, c.base_opened, c.base_dropped, 0};
}

// recover_table() reads the members of a service back as they were when its table was built.
tl::expected<recovered_table, std::string> recover_table(const abi::config_view& view,
                                                         const abi::service_row& row,
                                                         std::string name) {
  recovered_table table;
  if (row.kind == abi::scheduler::none || row.kind >= abi::scheduler::count_)
    return failure{"service " + name + ": its scheduler is unknown"};
  table.key.kind = schedule::table_kind(row.kind);
  table.key.size = row.table_size;
  table.offset = row.table_offset;
  table.digest = row.table_digest;
  for (std::uint32_t i = 0; i < row.member_count; ++i) {
    const abi::backend_ref ref = view.member(row, i);
    const abi::backend_row* backend = view.backend(ref);
    if (backend == nullptr || backend->service != row.self)
      return failure{"service " + name + ": member " + std::to_string(i) + " is no backend of it"};
    const maglev::member m{{backend->address, 0}, view.cold(ref)->effective_weight};
    if (m.weight == 0 || m.weight > maglev::max_weight ||
        (!table.key.members.empty() && table.key.members.back().id >= m.id))
      return failure{"service " + name + ": its members are out of order or have no weight"};
    table.key.members.push_back(m);
  }
  if (view.table_of(row).empty())
    return failure{"service " + name + ": its lookup table is out of bounds"};
  table.service = std::move(name);
  return table;
}

std::vector<abi::prefix_list> lists_of(const config_segment& segment, unsigned slot,
                                       const abi::generation_header& header) {
  const auto* lists = reinterpret_cast<const abi::prefix_list*>(
      segment.data() + segment.layout().slots + slot * segment.layout().slot_bytes +
      segment.layout().list_rows);
  return {lists, lists + std::min<unsigned>(header.list_count, abi::max_prefix_lists)};
}

}  // namespace

std::string service_name(const abi::service_cold& cold) {
  return {cold.name.begin(), std::find(cold.name.begin(), cold.name.end(), '\0')};
}

tl::expected<recovered, std::string> recover(const config_segment& segment) {
  const abi::generation_word word{segment.control().current.load(std::memory_order_acquire)};
  abi::config_view view;
  if (word.none() || !abi::config_view::open(segment.data(), segment.limits(), word.slot(), view) ||
      view.header().number != word.number())
    return failure{"its current generation is damaged"};
  const abi::generation_header& header = view.header();

  recovered out;
  out.hash_seed = header.hash_seed;
  out.base_instance = header.base_instance;
  out.flushes = header.flushes;
  out.lists = lists_of(segment, word.slot(), header);
  std::vector<std::string> names(header.service_count);
  out.ids.service_bases.resize(header.service_count);
  for (std::uint32_t i = 0; i < header.service_count; ++i) {
    const abi::service_id id{static_cast<std::uint16_t>(i)};
    const abi::service_row* row = view.service(id);
    if (row == nullptr) continue;
    std::string name = service_name(*view.cold(id));
    if (name.empty() || name.size() >= abi::service_cold{}.name.size())
      return failure{"service row " + std::to_string(i) + " has no proper name"};
    out.ids.service_bases[i] = base_of(*view.cold(id));
    if (row->member_count != 0) {
      auto table = recover_table(view, *row, name);
      if (!table) return failure{table.error()};
      out.tables.push_back(std::move(*table));
    }
    names[i] = name;
    if (!out.ids.services.emplace(std::move(name), service_ids{id, {}}).second)
      return failure{"service " + names[i] + " has two rows"};
  }

  out.ids.rows.resize(header.backend_count);
  for (std::uint32_t i = 0; i < header.backend_count; ++i) {
    const abi::backend_row& row = *view.backend_at(i);
    out.ids.rows[i].incarnation =
        row.incarnation & ((1u << abi::backend_ref::incarnation_bits) - 1);
    if ((row.flags & abi::backend_in_use) == 0) continue;
    const auto service = static_cast<std::uint32_t>(row.service);
    if (service >= names.size() || names[service].empty())
      return failure{"backend row " + std::to_string(i) + " belongs to no service"};
    out.ids.rows[i].base = base_of(*view.cold(abi::backend_ref::make(i, 0)));
    out.ids.services[names[service]].backends.emplace_back(row.address, i);
  }
  for (auto& [name, ids] : out.ids.services) {
    std::sort(ids.backends.begin(), ids.backends.end());
    for (std::size_t i = 1; i < ids.backends.size(); ++i)
      if (ids.backends[i - 1].first == ids.backends[i].first)
        return failure{"service " + name + " has a backend twice"};
  }

  for (std::uint32_t i = 0; i <= header.vip_mask; ++i) {
    const abi::vip_row& row = view.vip_at(i);
    if (row.protocol == 0) continue;
    if (!out.ids.vips.emplace(vip_key{row.address, row.protocol}, row.id).second)
      return failure{"a VIP has two rows"};
  }
  return out;
}

std::vector<recovered_health> health_shown(const abi::config_view& view) {
  std::vector<recovered_health> out;
  if (view.empty()) return out;
  for (std::uint32_t i = 0; i < view.header().backend_count; ++i) {
    const abi::backend_row& row = *view.backend_at(i);
    const abi::backend_cold& cold = *view.cold(abi::backend_ref::make(i, 0));
    if ((row.flags & abi::backend_in_use) == 0 ||
        (cold.health != abi::shown_health::up && cold.health != abi::shown_health::down) ||
        view.service(row.service) == nullptr)
      continue;
    out.push_back(
        {service_name(*view.cold(row.service)), row.address, cold.health == abi::shown_health::up});
  }
  return out;
}

shown_lists lists_shown(const config_segment& segment, std::string_view service) {
  const abi::generation_word word{segment.control().current.load(std::memory_order_acquire)};
  const abi::config_view view = segment.view();
  if (word.none() || view.empty()) return {};
  const auto rows = lists_of(segment, word.slot(), view.header());
  const auto content = [&](std::uint16_t number) {
    return number < rows.size() ? read_list(segment, rows[number]) : nullptr;
  };
  for (std::uint32_t i = 0; i < view.header().service_count; ++i) {
    const abi::service_row* row = view.service(abi::service_id{static_cast<std::uint16_t>(i)});
    if (row == nullptr || service_name(*view.cold(row->self)) != service) continue;
    if ((row->flags & abi::service_has_options) == 0) return {};
    const abi::service_options& o = *view.options(row->self);
    return {content(o.allow_list), content(o.deny_list)};
  }
  return {};
}

}  // namespace sluice::publish
