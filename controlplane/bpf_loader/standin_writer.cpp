// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/standin_writer.hpp"

#include <bpf/bpf.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace sluice::bpf_loader {

namespace {

tl::expected<file_descriptor, steer_error> make_table(const std::vector<std::uint64_t>& elements) {
  bpf_map_create_opts options{};
  options.sz = sizeof options;
  options.map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE;
  file_descriptor map{bpf_map_create(BPF_MAP_TYPE_ARRAY, "table", sizeof(std::uint32_t),
                                     sizeof(std::uint64_t),
                                     static_cast<std::uint32_t>(elements.size()), &options)};
  if (!map) return failed("making a table for the stand-in", errno);
  const std::size_t bytes = elements.size() * sizeof(std::uint64_t);
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
  if (at == MAP_FAILED) return failed("mapping a table of the stand-in", errno);
  std::memcpy(at, elements.data(), bytes);
  ::munmap(at, bytes);
  return map;
}

// read_table() returns a table's elements; none if it cannot be read.
std::vector<std::uint64_t> read_table(int map) {
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(map, &info, &size) != 0) return {};
  const std::size_t bytes = info.max_entries * sizeof(std::uint64_t);
  void* at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, map, 0);
  if (at == MAP_FAILED) return {};
  std::vector<std::uint64_t> elements(info.max_entries);
  std::memcpy(elements.data(), at, bytes);
  ::munmap(at, bytes);
  return elements;
}

// read_placed() reads the table that an earlier control plane has put in place.
std::vector<std::uint64_t> read_placed(int outer, std::uint32_t service) {
  std::uint32_t id = 0;
  if (bpf_map_lookup_elem(outer, &service, &id) != 0) return {};
  const file_descriptor map{bpf_map_get_fd_by_id(id)};
  return map ? read_table(map.get()) : std::vector<std::uint64_t>{};
}

}  // namespace

tl::expected<std::shared_ptr<file_descriptor>, steer_error> standin_writer::table_for(
    int outer, std::uint32_t service, const standin_contents& contents,
    const abi::config_view& view, bool keep) {
  const table_identity& wanted = contents.tables.at(service);
  const auto found = tables_.find(service);
  if (found != tables_.end() && found->second.identity == wanted && (keep || !found->second.kept))
    return found->second.map;
  auto slots = slots_of(view, service);
  if (slots.empty()) return std::shared_ptr<file_descriptor>{};
  if (keep)
    keep_slots(
        slots,
        found != tables_.end() ? read_table(found->second.map->get()) : read_placed(outer, service),
        contents.rows);
  auto made = make_table(slots);
  if (!made) return tl::unexpected{made.error()};
  auto map = std::make_shared<file_descriptor>(std::move(*made));
  tables_[service] = {wanted, map, keep};
  return map;
}

tl::expected<void, steer_error> standin_writer::write_tables(int outer, std::uint32_t outer_id,
                                                             const standin_contents& contents,
                                                             const abi::config_view& view,
                                                             bool keep) {
  auto& placed = placed_[outer_id];
  std::vector<std::uint32_t> services;
  std::vector<int> maps;
  std::map<std::uint32_t, std::shared_ptr<file_descriptor>> next;
  for (const auto& [service, identity] : contents.tables) {
    const auto map = table_for(outer, service, contents, view, keep);
    if (!map) return tl::unexpected{map.error()};
    if (*map == nullptr) continue;
    next.emplace(service, *map);
    if (const auto there = placed.find(service); there != placed.end() && there->second == *map)
      continue;
    services.push_back(service);
    maps.push_back((*map)->get());
  }
  // All at once: the kernel waits for the packets that are on their way, once per call.
  if (auto count = static_cast<std::uint32_t>(services.size()); count != 0) {
    bpf_map_batch_opts options{};
    options.sz = sizeof options;
    if (bpf_map_update_batch(outer, services.data(), maps.data(), &count, &options) != 0)
      return failed("placing tables of the stand-in", errno);
  }
  for (const auto& [service, map] : placed)
    if (!next.contains(service) && bpf_map_delete_elem(outer, &service) != 0 && errno != ENOENT)
      return failed("removing a table of the stand-in", errno);
  placed = std::move(next);
  return {};
}

tl::expected<void, steer_error> standin_writer::write(const std::string& interface,
                                                      const standin_contents& contents,
                                                      const abi::config_view& view, bool keep) {
  const auto program = find_program(interface);
  if (!program) return tl::unexpected{program.error()};
  const auto rows = open_map(*program, SLUICE_STANDIN_ROWS_MAP, sizeof(std::uint32_t),
                             sizeof(sluice_standin_row));
  const auto ports = open_map(*program, SLUICE_STANDIN_PORTS_MAP, sizeof(sluice_vip_key),
                              sizeof(sluice_standin_ports));
  const auto outer =
      open_map(*program, SLUICE_STANDIN_TABLES_MAP, sizeof(std::uint32_t), sizeof(std::uint32_t));
  const auto config = open_map(*program, SLUICE_STANDIN_CONFIG_MAP, sizeof(std::uint32_t),
                               sizeof(sluice_standin_config));
  for (const auto* map : {&rows, &ports, &outer, &config})
    if (!*map) return tl::unexpected{map->error()};
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(outer->get(), &info, &size) != 0)
    return failed("asking about " SLUICE_STANDIN_TABLES_MAP, errno);

  const auto present_rows =
      read_map<decltype(contents.rows)>(rows->get(), SLUICE_STANDIN_ROWS_MAP, SLUICE_STANDIN_ROWS);
  if (!present_rows) return tl::unexpected{present_rows.error()};
  const auto present_ports = read_map<decltype(contents.ports)>(
      ports->get(), SLUICE_STANDIN_PORTS_MAP, SLUICE_MAX_VIP_ENTRIES);
  if (!present_ports) return tl::unexpected{present_ports.error()};

  using done = tl::expected<std::size_t, steer_error>;
  if (const done r = add_missing(rows->get(), contents.rows, *present_rows); !r)
    return tl::unexpected{r.error()};
  if (const done r = remove_extra(ports->get(), contents.ports, *present_ports); !r)
    return tl::unexpected{r.error()};
  if (const auto r = write_tables(outer->get(), info.id, contents, view, keep); !r) return r;
  if (const done r = add_missing(ports->get(), contents.ports, *present_ports); !r)
    return tl::unexpected{r.error()};
  if (const done r = remove_extra(rows->get(), contents.rows, *present_rows); !r)
    return tl::unexpected{r.error()};
  const std::uint32_t zero = 0;
  sluice_standin_config options = contents.config;
  if (keep) options.generation = 0;
  if (bpf_map_update_elem(config->get(), &zero, &options, BPF_ANY) != 0)
    return failed("writing " SLUICE_STANDIN_CONFIG_MAP, errno);
  // Services that went and programs that are no more leave nothing here.
  outer_of_[interface] = info.id;
  drop_unattached();
  std::erase_if(tables_, [&](const auto& t) { return !contents.tables.contains(t.first); });
  return {};
}

void standin_writer::forget(const std::string& interface) {
  if (outer_of_.erase(interface) == 0) return;
  drop_unattached();
  if (placed_.empty()) tables_.clear();
}

// drop_unattached() forgets the outer maps of programs that are no longer attached: their
// descriptors would keep the tables in the kernel.
void standin_writer::drop_unattached() {
  std::erase_if(placed_, [this](const auto& p) {
    return std::none_of(outer_of_.begin(), outer_of_.end(),
                        [&p](const auto& o) { return o.second == p.first; });
  });
}

}  // namespace sluice::bpf_loader
