// SPDX-License-Identifier: Apache-2.0
#include "controlplane/publish/observations.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace sluice::publish {
namespace {

bool workers_quiescent(const observations& o, std::uint64_t number) noexcept {
  for (std::uint32_t i = 0; i < o.workers(); ++i) {
    const std::span<const abi::epoch_cell<>, 1> cell{&o.map().worker(i).generation, 1};
    if (!abi::generation_writer<>::quiescent(cell, number)) return false;
  }
  return true;
}

}  // namespace

observations::observations(abi::mapped_file file, const abi::observation_layout& layout,
                           std::uint64_t instance)
    : file_{std::move(file)}, map_{file_.data(), layout}, instance_{instance} {}

std::shared_ptr<const observations> observations::attach(const std::string& path,
                                                         std::string& error) {
  abi::mapped_file file = abi::attach_segment(path, abi::observation_magic, false, error);
  if (!file) return nullptr;
  if (file.size() < sizeof(abi::segment_header) + sizeof(abi::dataplane_info)) {
    error = path + ": too small for an observation segment";
    return nullptr;
  }
  const auto* info =
      reinterpret_cast<const abi::dataplane_info*>(file.data() + sizeof(abi::segment_header));
  const std::uint32_t workers = info->worker_count;
  const std::uint32_t services = info->services;
  const std::uint32_t backends = info->backends;
  if (!abi::observation_layout::valid(workers, services, backends)) {
    error = path + ": impossible numbers of workers or rows";
    return nullptr;
  }
  const auto layout = abi::observation_layout::of(workers, services, backends);
  if (layout.total > file.size()) {
    error = path + ": smaller than its rows need";
    return nullptr;
  }
  const std::uint64_t instance =
      reinterpret_cast<const abi::segment_header*>(file.data())->instance;
  return std::shared_ptr<const observations>{new observations{std::move(file), layout, instance}};
}

counter_sums observations::service_sums(std::uint32_t row) const noexcept {
  counter_sums sums{};
  if (row >= map_.layout().service_rows) return sums;
  for (std::uint32_t i = 0; i < workers(); ++i) {
    const abi::service_counters& c = map_.services(i)[row];
    sums[0] += c.packets.read();
    sums[1] += c.bytes.read();
    sums[2] += c.opened.read();
    sums[3] += c.dropped.read();
  }
  return sums;
}

counter_sums observations::backend_sums(std::uint32_t row) const noexcept {
  counter_sums sums{};
  if (row >= map_.layout().backend_rows) return sums;
  for (std::uint32_t i = 0; i < workers(); ++i) {
    const abi::backend_counters& c = map_.backends(i)[row];
    sums[0] += c.packets.read();
    sums[1] += c.bytes.read();
    sums[2] += c.opened.read();
    sums[3] += c.closed.read();
    sums[4] += map_.resets(i)[row].read();
  }
  return sums;
}

std::uint64_t observations::sum(abi::counter_id id) const noexcept {
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < workers(); ++i)
    total += map_.worker(i).counters[static_cast<std::size_t>(id)].read();
  return total;
}

bool observation_follower::refresh() {
  const std::uint64_t inode = abi::inode_of(path_);
  const auto now = current();
  // Our descriptor keeps the inode from being given to another file.
  if (now && now->inode() == inode) {
    unreadable_ = false;
    return false;
  }
  std::string error;
  std::shared_ptr<const observations> next;
  if (inode != 0) next = observations::attach(path_, error);
  // A file of another layout belongs to a data plane that cannot read our segment
  // either; one that could not be opened may belong to a reader.
  unreadable_ = inode != 0 && !next && error.find("cannot ") != std::string::npos;
  const std::lock_guard lock{mutex_};
  error_ = error;
  if (!next) return false;
  if (current_) older_.push_back(current_);
  current_ = std::move(next);
  return true;
}

std::shared_ptr<const observations> observation_follower::current() const {
  const std::lock_guard lock{mutex_};
  return current_;
}

std::string observation_follower::last_error() const {
  const std::lock_guard lock{mutex_};
  return error_;
}

bool observation_follower::quiescent(std::uint64_t number) {
  refresh();
  if (unreadable_) return false;
  std::erase_if(older_, [](const auto& o) { return !o->alive(); });
  if (const auto now = current(); now && now->alive() && !workers_quiescent(*now, number))
    return false;
  return std::all_of(older_.begin(), older_.end(),
                     [number](const auto& o) { return workers_quiescent(*o, number); });
}

std::uint64_t observation_follower::instance() const {
  const auto now = current();
  return now ? now->instance() : 0;
}

counter_sums observation_follower::service_sums(std::uint32_t row) const {
  const auto now = current();
  return now ? now->service_sums(row) : counter_sums{};
}

counter_sums observation_follower::backend_sums(std::uint32_t row) const {
  const auto now = current();
  return now ? now->backend_sums(row) : counter_sums{};
}

}  // namespace sluice::publish
