// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/memory_config.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "controlplane/lists/prefix_file.hpp"
#include "controlplane/publish/config_writer.hpp"
#include "controlplane/publish/effective.hpp"
#include "controlplane/schedule/schedule.hpp"

namespace sluice::publish {

std::uint16_t workers_of(const node_config& node) {
  switch (node.dataplane.workers.selection) {
    case worker_selection::automatic:
      break;
    case worker_selection::count:
      return static_cast<std::uint16_t>(node.dataplane.workers.count);
    case worker_selection::list:
      return static_cast<std::uint16_t>(node.dataplane.workers.cpus.size());
  }
  return 0;
}

memory_config_options options_of(const node_config& node) {
  memory_config_options options;
  options.settings.hash_seed = node.hash_seed;
  options.settings.source4 = to_encap_source(node.dataplane.encap_source_ipv4);
  options.settings.source6 = to_encap_source(node.dataplane.encap_source_ipv6);
  options.settings.gue_port = node.dataplane.gue_port;
  options.settings.pool = node.dataplane.nat_pool;
  const auto& ports = node.dataplane.ports;
  const auto port = std::find_if(ports.begin(), ports.end(),
                                 [](const port_config& p) { return p.next_hop.has_value(); });
  if (port != ports.end()) {
    const hop way{*port->next_hop, static_cast<std::uint8_t>(port - ports.begin())};
    options.find_hop = [way](const ip_address&) { return std::optional{way}; };
  }
  return options;
}

published_state all_healthy(const model::desired_state& state,
                            const memory_config_options& options) {
  published_state out;
  out.revision = options.revision;
  out.workers = options.workers;
  out.services.reserve(state.services.size());
  for (const auto& s : state.services) {
    std::vector<condition> conditions(s.backends.size());
    for (std::size_t i = 0; i < conditions.size(); ++i) {
      conditions[i].health = abi::shown_health::up;
      conditions[i].next_hop = options.find_hop ? options.find_hop(s.backends[i].address)
                                                : hop{{0x02, 0, 0, 0, 0, 0xfe}, 0};
    }
    out.services.push_back(effective(s, conditions));
    if (!options.find_list) continue;
    out.services.back().allow = options.find_list(s.allow);
    out.services.back().deny = options.find_list(s.deny);
  }
  return out;
}

tl::expected<config_segment, std::string> make_config(const model::desired_state& state,
                                                      const memory_config_options& options) {
  published_state wanted = all_healthy(state, options);
  if (!options.find_list) {
    // Services often name the same file.
    std::map<std::pair<std::string, std::vector<ip_prefix>>, lists::shared_ranges> known;
    for (std::size_t i = 0; i < state.services.size(); ++i) {
      const model::service& s = state.services[i];
      for (const auto& [set, place] :
           {std::pair{&s.allow, &wanted.services[i].allow}, {&s.deny, &wanted.services[i].deny}}) {
        if (!set->given()) continue;
        const auto [entry, fresh] = known.try_emplace({set->file, set->prefixes});
        if (fresh) {
          auto loaded = lists::load(*set);
          if (!loaded) return tl::unexpected{to_string(loaded.error())};
          entry->second = std::move(*loaded);
        }
        *place = entry->second;
      }
    }
  }
  abi::config_limits limits{};
  limits.services = static_cast<std::uint32_t>(std::max<std::size_t>(wanted.services.size(), 1));
  std::size_t backends = 1;
  limits.arena_bytes = 4096;
  for (const auto& s : wanted.services) {
    backends += s.backends.size();
    limits.arena_bytes +=
        abi::table_bytes(schedule::largest_table(s.kind, s.backends.size(), s.table_size),
                         s.backends.size()) +
        arena::alignment;
    for (const auto& list : {s.allow, s.deny})
      if (list) limits.arena_bytes += list->bytes() + arena::alignment;
  }
  limits.backends = static_cast<std::uint32_t>(std::min<std::size_t>(backends, abi::max_backends));
  auto segment = config_segment::in_memory(limits);
  if (!segment) return segment;
  const auto writer =
      config_writer::fresh(std::move(*segment), options.settings, std::make_shared<reader_watch>());
  if (const publish_result done = writer->publish(wanted); done.status != publish_status::published)
    return tl::unexpected{done.error};
  return std::move(*writer).release();
}

}  // namespace sluice::publish
