// SPDX-License-Identifier: Apache-2.0
// The workers' connection tables and NAT sessions at start: taken over from the data plane
// before, or new.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "dataplane/abi/segment.hpp"
#include "dataplane/connection/table.hpp"
#include "dataplane/port/xdp_attach.hpp"
#include "dataplane/process/data_plane.hpp"
#include "dataplane/process/eal.hpp"

namespace sluice {
namespace {

std::string table_name(const node_config& node, std::size_t worker) {
  return fmt::format("{}.connections.{}", runtime_prefix(node.runtime_dir), worker);
}

std::string nat_name(const node_config& node, std::size_t worker) {
  return fmt::format("{}.nat.{}", runtime_prefix(node.runtime_dir), worker);
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

// make_nat_tables() comes after make_tables(): sessions go on where their connections do.
tl::expected<void, std::string> data_plane::make_nat_tables() {
  const auto workers = static_cast<unsigned>(tables_.size());
  const abi::config_view view = config_.offered_view();
  // A backend that is gone, or whose row is another's by now, gets no packet.
  const auto keeps = [&view](const nat_session& s) {
    const abi::backend_row* row = view.backend(s.backend);
    return row != nullptr && row->address == s.server;
  };
  for (unsigned i = 0; i < workers; ++i) {
    const abi::connection_header& connections = tables_[i].header();
    nat_file_options options;
    options.name = nat_name(node_, i);
    options.runtime_dir = node_.runtime_dir;
    options.worker = i;
    options.sessions = nat_table::sessions_for(node_.dataplane.connections);
    options.table = connections.instance;
    options.numa_node = plan_.places.workers[i].numa_node;
    auto file = nat_file::adopt(options);
    const bool adopted = file.has_value();
    if (!adopted) {
      if (!file.error().text.empty())
        spdlog::warn("NAT sessions {}: start empty: {}", i, file.error().text);
      auto made = nat_file::create(options);
      if (!made) return tl::unexpected{made.error()};
      file = std::move(*made);
    }
    nat_files_.push_back(std::move(*file));
    const nat_file& in = nat_files_.back();
    nat_tables_.push_back(std::make_unique<nat_table>(
        nat_table::options{options.sessions,
                           i,
                           workers,
                           {connections.secret[0], connections.secret[1]},
                           in.sessions(),
                           options.numa_node}));
    nat_table& table = *nat_tables_.back();
    if (!table.ready()) return tl::unexpected{std::string{"no memory for NAT"}};
    if (!adopted) {
      // The secret is the boot's: from where it says an earlier process may have begun, whose
      // connections still stand at the backends. They answer those with a reset, and nobody can
      // be taken for another, where the ports are others.
      table.begin_at(abi::random_u64());
      continue;
    }
    const auto without = table.adopt(in.present(), in.next_port(), keeps);
    const auto also = [](std::uint32_t n, const char* what) {
      return n == 0 ? std::string{} : fmt::format(", {} {}", n, what);
    };
    spdlog::info("NAT sessions {}: taken over {} from {}{}{}", i, table.size(), in.path(),
                 also(without.dropped, "whose backends are gone removed"),
                 also(without.torn, "torn ones removed"));
  }
  grow_nat_tables();
  for (std::size_t i = workers; i < abi::max_workers; ++i)
    remove_file(node_.runtime_dir, nat_name(node_, i), {});
  return {};
}

// grow_nat_tables() keeps memory ready ahead of the workers.
void data_plane::grow_nat_tables() {
  for (std::size_t w = 0; w < nat_tables_.size(); ++w) {
    nat_table& table = *nat_tables_[w];
    nat_file& file = nat_files_[w];
    const int error = file.grow(table.used());
    table.set_room(file.present());
    table.provide();
    file.note_port(table.next_port());
    if (error != 0 && !nat_short_)
      spdlog::warn("NAT sessions {}: no memory for more than {} in {}: {}", w, file.present(),
                   file.path(), std::strerror(error));
    nat_short_ = nat_short_ || error != 0;
  }
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
  counters[static_cast<std::size_t>(abi::counter_id::nat_sessions_opened)].add(
      nat_tables_[worker]->size());
}

tl::expected<void, std::string> remove_leftovers(const node_config& node) {
  for (std::size_t i = 0; i < abi::max_workers; ++i) {
    for (const std::string& directory : {hugetlbfs_directory(), node.runtime_dir})
      remove_file(directory, table_name(node, i), {});
    remove_file(node.runtime_dir, nat_name(node, i), {});
  }
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
