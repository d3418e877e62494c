// SPDX-License-Identifier: Apache-2.0
// Who forwards: this process, or the stand-in in the kernel.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "dataplane/abi/bpf_objects.hpp"
#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/standin_abi.h"
#include "dataplane/process/data_plane.hpp"

namespace sluice {

// attach_programs() is the last step of the start: the workers run, and from here on the
// packets of services come to them. Until here an earlier data plane's stand-in has
// forwarded, if there was one.
tl::expected<void, std::string> data_plane::attach_programs() {
  const std::string object = find_bpf_object("steer");
  const xdp_program* first = nullptr;
  programs_.resize(ports_.size());
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < ports_.size(); ++i)
    if (ports_[i].is_af_xdp()) order.push_back(i);
  // All share the first one's maps: those of an earlier data plane, if it has left any, and not
  // the empty ones of a port that it did not have.
  std::stable_partition(order.begin(), order.end(),
                        [this](std::size_t i) { return leftovers_[i].found(); });
  for (const std::size_t i : order) {
    const std::string& interface = plan_.devices[i].config->interface;
    const auto fail = [&](const std::string& why) {
      return tl::unexpected{"port " + ports_[i].name() + ": " + why};
    };
    auto program = xdp_program::load(object, leftovers_[i], first);
    if (!program) return fail(program.error());
    programs_[i] = std::move(*program);
    beat();
    if (auto done = programs_[i]->attach(interface, leftovers_[i]); !done)
      return fail(done.error());
    const auto& sockets = ports_[i].xdp_sockets;
    for (std::uint32_t queue = 0; queue < sockets.size(); ++queue)
      if (auto done = programs_[i]->enter(queue, sockets[queue]); !done) return fail(done.error());
    if (leftovers_[i].found())
      spdlog::info("port {}: the XDP program was replaced, {} maps kept", ports_[i].name(),
                   programs_[i]->kept());
    leftovers_[i] = {};
    if (first == nullptr) first = &*programs_[i];
  }
  if (first == nullptr) return {};
  std::vector<abi::connection_reader> readers(tables_.size());
  for (std::size_t i = 0; i < tables_.size(); ++i)
    abi::connection_reader::open(tables_[i].data(), tables_[i].size(), readers[i]);
  const pinned_mirror::maps maps{.pinned = first->map(SLUICE_PINNED_MAP),
                                 .heartbeat = first->map(SLUICE_HEARTBEAT_MAP),
                                 .config = first->map(SLUICE_STANDIN_CONFIG_MAP)};
  pinned_.emplace(
      maps, std::move(readers), [this] { return config_.offered_view(); }, config_mutex_);
  return {};
}

// beat() passes the workers' heartbeats on to the programs: a worker that hangs loses its
// queues to the stand-in.
void data_plane::beat() {
  const auto workers = static_cast<unsigned>(workers_.size());
  for (std::size_t i = 0; i < programs_.size(); ++i) {
    if (!programs_[i]) continue;
    for (std::uint32_t queue = 0; queue < ports_[i].rx.size(); ++queue)
      programs_[i]->beat(queue,
                         observations_.worker(rx_worker(queue, workers)).heartbeat_ns.read());
  }
}

// hand_to_standin() has the stand-in take over at once, while the workers still send what
// they have received.
void data_plane::hand_to_standin() noexcept {
  pinned_.reset();  // tells it the latest
  for (std::size_t i = 0; i < programs_.size(); ++i)
    for (std::uint32_t queue = 0; programs_[i] && queue < ports_[i].rx.size(); ++queue)
      programs_[i]->beat(queue, 1);
  if (launched_) std::this_thread::sleep_for(std::chrono::milliseconds{5});
}

}  // namespace sluice
