// SPDX-License-Identifier: Apache-2.0
#include "controlplane/daemon/reloader.hpp"

#include <utility>

#include <spdlog/spdlog.h>

#include "controlplane/daemon/supervision.hpp"

namespace sluice::daemon {

void set_log_level(log_level level) {
  spdlog::set_level(spdlog::level::from_str(std::string{to_string(level)}));
}

reloader::reloader(const node_config& running, std::optional<log_level> level, take take_over)
    : running_{running}, level_{level}, take_over_{std::move(take_over)} {
  thread_ = std::thread{[this] { run(); }};
}

reloader::~reloader() {
  {
    const std::lock_guard lock{mutex_};
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void reloader::request() {
  {
    const std::lock_guard lock{mutex_};
    wanted_ = true;
  }
  wake_.notify_all();
}

void reloader::run() {
  std::unique_lock lock{mutex_};
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || wanted_; });
    if (stop_) return;
    wanted_ = false;
    lock.unlock();
    tell_reloading();
    reload();
    tell_ready();
    lock.lock();
  }
}

void reloader::reload() {
  const auto refuse = [this](const std::vector<config_error>& errors) {
    for (const auto& e : errors) spdlog::error("{}", e.to_string());
    spdlog::error("{}: not reloaded; all stays as it was", running_.file);
  };
  const auto next = load_node_file(running_.file);
  if (!next) return refuse(next.error());
  if (const auto done = take_over_(*next); !done) return refuse(done.error());
  set_log_level(level_.value_or(next->log));
  std::string later;
  for (const std::string_view key : changed_keys(running_, *next))
    if (key != "node.log-level") later += (later.empty() ? "" : ", ") + std::string{key};
  if (!later.empty())
    spdlog::warn("{}: changed, and not taken over before a restart: {}", running_.file, later);
  spdlog::info("{}: reloaded", running_.file);
}

}  // namespace sluice::daemon
