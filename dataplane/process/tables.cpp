// SPDX-License-Identifier: Apache-2.0
// The workers' connection tables at start: taken over from the data plane before, or new.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>

#include "dataplane/connection/table.hpp"
#include "dataplane/port/xdp_attach.hpp"
#include "dataplane/process/data_plane.hpp"
#include "dataplane/process/eal.hpp"

namespace sluice {
namespace {

std::string table_name(const node_config& node, std::size_t worker) {
  return fmt::format("{}.connections.{}", runtime_prefix(node.runtime_dir), worker);
}

void remove_file(const std::string& directory, const std::string& name,
                 const std::string& but) noexcept {
  if (const std::string path = directory + "/" + name; !directory.empty() && path != but)
    ::unlink(path.c_str());
}

}  // namespace

tl::expected<void, std::string> data_plane::make_tables() {
  const std::string huge = hugetlbfs_directory();
  const auto workers = plan_.places.workers.size();
  const std::uint64_t instance = config_.offered_instance();
  for (std::size_t i = 0; i < workers; ++i) {
    connection::table_file_options options;
    options.name = table_name(node_, i);
    options.runtime_dir = node_.runtime_dir;
    options.hugepage_dir = huge;
    options.worker = static_cast<std::uint32_t>(i);
    options.workers = static_cast<std::uint32_t>(workers);
    options.connections4 = options.connections6 = node_.dataplane.connections;
    options.numa_node = plan_.places.workers[i].numa_node;
    auto table = connection::table_file::adopt(options, instance);
    if (table) {
      connection::connection_table connections{table->data()};
      const std::uint64_t removed = connections.repair();
      spdlog::info("connection table {}: adopted {} connections from {}{}", i, connections.size(),
                   table->path(),
                   removed == 0 ? "" : fmt::format(", {} torn ones removed", removed));
      leave_ = true;  // should this start fail, the next one may have them
    } else {
      if (!table.error().text.empty())
        spdlog::warn("connection table {}: starts empty: {}", i, table.error().text);
      if (!plan_.memory.huge) options.hugepage_dir.clear();
      auto made = connection::table_file::create(options);
      if (!made) return tl::unexpected{made.error()};
      if (!made->note().empty()) spdlog::info("connection table {}: {}", i, made->note());
      table = std::move(*made);
    }
    for (const std::string& directory : {huge, node_.runtime_dir})
      remove_file(directory, options.name, table->path());
    tables_.push_back(std::move(*table));
  }
  // Of workers that there are no more.
  for (std::size_t i = workers; i < abi::max_workers; ++i)
    for (const std::string& directory : {huge, node_.runtime_dir})
      remove_file(directory, table_name(node_, i), {});
  return {};
}

// count_adopted() has the counters begin with what a table begins with: opened - closed is
// what is tracked.
void data_plane::count_adopted(unsigned worker, const abi::observation_map<std::byte>& map) const {
  abi::connection_reader reader;
  const connection::table_file& table = tables_[worker];
  if (abi::connection_reader::open(table.data(), table.size(), reader) !=
      abi::connection_reader::status::ok)
    return;
  const abi::config_view view = config_.offered_view();
  abi::backend_counters* backends = map.backends(worker);
  std::uint64_t found = 0;
  reader.for_each([&](const abi::connection_view& c) {
    ++found;
    if (view.backend(c.backend) != nullptr && c.backend.index() < map.layout().backend_rows)
      backends[c.backend.index()].opened.add(1);
    return true;
  });
  auto& counters = map.worker(worker).counters;
  for (const abi::counter_id id :
       {abi::counter_id::connections_opened, abi::counter_id::connections_adopted})
    counters[static_cast<std::size_t>(id)].add(found);
}

tl::expected<void, std::string> remove_leftovers(const node_config& node) {
  for (std::size_t i = 0; i < abi::max_workers; ++i)
    for (const std::string& directory : {hugetlbfs_directory(), node.runtime_dir})
      remove_file(directory, table_name(node, i), {});
  std::string problems;
  for (const port_config& port : node.dataplane.ports) {
    if (port.kind != device_kind::af_xdp) continue;
    if (const auto done = detach_xdp(port.interface); !done)
      problems += (problems.empty() ? "" : "; ") + done.error();
  }
  if (!problems.empty()) return tl::unexpected{problems};
  return {};
}

}  // namespace sluice
