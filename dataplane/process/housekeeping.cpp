// SPDX-License-Identifier: Apache-2.0
// What the main thread does while the workers forward: the only thread that calls the
// system, so that they need not.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "dataplane/abi/segment.hpp"
#include "dataplane/process/data_plane.hpp"
#include "dataplane/process/notify.hpp"
#include "dataplane/process/telemetry.hpp"

namespace sluice {
namespace {

constexpr std::uint64_t millisecond = 1'000'000;
// How often the heartbeats are passed on to the XDP programs.
constexpr long beat_ns = 10 * static_cast<long>(millisecond);
// How soon a control plane that has just started is noticed.
constexpr unsigned beats_per_tick = 5;
constexpr std::uint64_t statistics_every_ns = 500 * millisecond;
// Workers report every 100 ms at the latest; a machine that is short of CPUs gets grace.
constexpr std::uint64_t stuck_after_ns = 2000 * millisecond;

}  // namespace

int data_plane::run(const sigset_t& until) {
  for (unsigned beats = 0;; ++beats) {
    beat();
    if (beats % beats_per_tick == 0) tick(abi::clock_ns(CLOCK_MONOTONIC));
    const timespec pause{0, beat_ns};
    const int signal = ::sigtimedwait(&until, nullptr, &pause);
    if (signal > 0) return signal;
    if (errno != EAGAIN && errno != EINTR) return SIGTERM;
  }
}

void data_plane::tick(std::uint64_t now_ns) {
  abi::dataplane_info& info = observations_.info();
  {
    const std::lock_guard tables{telemetry_tables()};
    const std::lock_guard lock{config_mutex_};
    config_.poll({[this](const attached_config* c) {
                    return std::ranges::all_of(
                        workers_, [c](const auto& w) { return w->tables().in_use() == c; });
                  },
                  [this](const attached_config* c) {
                    return std::ranges::any_of(
                        workers_, [c](const auto& w) { return w->tables().in_use() == c; });
                  }});
  }
  for (connection::table_file& table : tables_) table.keep_adoptable(config_.instance(), now_ns);
  grow_nat_tables();
  info.config_instance.set(config_.instance());
  watch_workers(now_ns);
  if (now_ns >= next_statistics_ns_) {
    next_statistics_ns_ = now_ns + statistics_every_ns;
    for (std::size_t i = 0; i < ports_.size(); ++i)
      update_port_info(ports_[i], observations_.port(static_cast<unsigned>(i)));
  }
  info.heartbeat_ns.set(now_ns);
}

void data_plane::watch_workers(std::uint64_t now_ns) {
  bool all_well = true;
  std::uint64_t refused = 0;
  for (std::size_t w = 0; w < workers_.size(); ++w) {
    const std::uint64_t beat = observations_.worker(static_cast<unsigned>(w)).heartbeat_ns.read();
    const bool late = now_ns > beat && now_ns - beat > stuck_after_ns;
    if (late != late_[w]) {
      if (late)
        spdlog::error("worker {} has not reported for {} ms", w, (now_ns - beat) / millisecond);
      else
        spdlog::info("worker {} reports again", w);
      notify_status(late ? fmt::format("worker {} does not report", w) : summary());
    }
    late_[w] = late;
    all_well &= !late;
    // Every worker refuses a bad generation once.
    refused = std::max(refused, workers_[w]->tables().refused());
  }
  if (refused > refused_generations_) {
    spdlog::error(
        "{} generation(s) of tables refused: impossible values; going on with the last "
        "good one",
        refused - refused_generations_);
    refused_generations_ = refused;
    observations_.info().bad_generations.set(refused);
  }
  // A stuck worker lets systemd's watchdog bite.
  if (watchdog_every_ns_ != 0 && all_well && now_ns >= next_watchdog_ns_) {
    next_watchdog_ns_ = now_ns + watchdog_every_ns_;
    notify_watchdog();
  }
}

}  // namespace sluice
