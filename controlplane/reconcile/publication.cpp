// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/publication.hpp"

#include <utility>

#include <spdlog/spdlog.h>

namespace sluice::reconcile {
namespace {

using namespace std::chrono_literals;

constexpr auto coalesce_for = 1ms;
constexpr auto retry_stuck = 2ms;
constexpr auto retry_refused = 1s;
constexpr auto report_stuck_after = 500ms;

}  // namespace

publication::publication(event_loop& loop,
                         std::shared_ptr<publish::observation_follower> observations,
                         events::event_log& events, std::function<void()> on_published)
    : loop_{loop},
      observations_{std::move(observations)},
      events_{events},
      on_published_{std::move(on_published)} {}

publication::~publication() {
  for (const auto timer : {publish_timer_, await_timer_}) loop_.cancel(timer);
}

tl::expected<void, std::string> publication::open(const node_config& node,
                                                  const publish::writer_settings& settings) {
  const std::string path = node.config_segment_path();
  const auto& wanted = node.controlplane.limits;
  // Three generations may be in use at a time when every table changes.
  const abi::config_limits limits{wanted.services, wanted.backends,
                                  (std::uint64_t{wanted.table_memory_mib} << 20) * 3};
  const auto create = [&] { return publish::config_segment::create_file(path, limits); };
  if (abi::inode_of(path) == 0) {
    auto segment = create();
    if (!segment) return tl::unexpected{segment.error()};
    writer_ = publish::config_writer::fresh(std::move(*segment), settings, observations_);
    spdlog::info("{}: new tables", path);
    return {};
  }
  std::string damage;
  auto live = publish::config_segment::attach_file(path);
  if (!live) {
    damage = live.error();
  } else if (live->limits().services == limits.services &&
             live->limits().backends == limits.backends &&
             live->limits().arena_bytes == limits.arena_bytes) {
    auto writer = publish::config_writer::attach(std::move(*live), settings, observations_);
    if (writer) {
      writer_ = std::move(*writer);
      spdlog::info("{}: goes on from generation {}", path, writer_->generation());
      return {};
    }
    damage = path + ": " + writer.error();
  } else {
    auto segment = create();
    if (!segment) return tl::unexpected{segment.error()};
    auto writer =
        publish::config_writer::replace(*live, std::move(*segment), settings, observations_);
    if (writer) {
      writer_ = std::move(*writer);
      spdlog::info("{}: new tables with other limits, the numbers are kept", path);
      return {};
    }
    damage = path + ": " + writer.error();
  }
  // The data plane goes on with the old file until it sees the new one.
  spdlog::error("{}: replaced by new tables; connections may change their backends", damage);
  auto segment = create();
  if (!segment) return tl::unexpected{segment.error()};
  writer_ = publish::config_writer::fresh(std::move(*segment), settings, observations_);
  return {};
}

void publication::soon() {
  current_ = false;
  if (publish_timer_ != 0 || publish_posted_) return;
  const auto moment = event_loop::now();
  if (moment - published_at_ >= coalesce_for) {
    // A verdict that comes alone does not wait for a timer: those that the loop has already
    // fetched share its generation, what comes after that the next one.
    publish_posted_ = true;
    loop_.post([this, here = std::weak_ptr{here_}] {
      if (!here.expired() && publish_posted_) now();
    });
    return;
  }
  publish_timer_ = loop_.call_after(coalesce_for, [this] {
    publish_timer_ = 0;
    now();
  });
}

void publication::now() {
  loop_.cancel(std::exchange(publish_timer_, 0));
  publish_posted_ = false;
  const publish::publish_result done = writer_->publish(state_);
  published_at_ = event_loop::now();
  current_ = done.status == publish::publish_status::published;
  if (current_) {
    if (problem_logged_) spdlog::info("generation {}: published after all", done.generation);
    problem_since_.reset();
    problem_logged_ = false;
    publish_problem_.clear();
    counters_.published.fetch_add(1, std::memory_order_relaxed);
    counters_.tables_built.fetch_add(done.tables_built, std::memory_order_relaxed);
    counters_.build.add(done.took);
    events_.add("publish", {},
                {{"generation", done.generation},
                 {"revision", state_.revision},
                 {"tables_built", done.tables_built},
                 {"ms", std::chrono::duration<double, std::milli>(done.took).count()}});
    spdlog::debug("generation {}: {} tables built, {:.2f} ms", done.generation, done.tables_built,
                  std::chrono::duration<double, std::milli>(done.took).count());
    if (!awaited_verdict_) awaited_verdict_ = oldest_verdict_;
    oldest_verdict_.reset();
    awaited_ = done.generation;
    await_workers();
    on_published_();
    return;
  }
  failed(done);
}

void publication::failed(const publish::publish_result& done) {
  const bool refused = done.status == publish::publish_status::refused;
  (refused ? counters_.refused : counters_.deferred).fetch_add(1, std::memory_order_relaxed);
  publish_problem_ = done.error;
  const auto moment = event_loop::now();
  if (!problem_since_) problem_since_ = moment;
  // A worker that slept for some milliseconds is nothing to report.
  if (!problem_logged_ && (refused || moment - *problem_since_ >= report_stuck_after)) {
    spdlog::warn("not published: {}", done.error);
    problem_logged_ = true;
  }
  publish_timer_ = loop_.call_after(
      refused ? event_loop::duration{retry_refused} : event_loop::duration{retry_stuck}, [this] {
        publish_timer_ = 0;
        now();
      });
}

void publication::await_workers() {
  loop_.cancel(std::exchange(await_timer_, 0));
  if (!observations_->quiescent(awaited_)) {
    await_timer_ = loop_.call_after(coalesce_for, [this] {
      await_timer_ = 0;
      await_workers();
    });
    return;
  }
  if (awaited_verdict_) counters_.verdict.add(event_loop::now() - *awaited_verdict_);
  awaited_verdict_.reset();
  writer_->collect();
}

}  // namespace sluice::reconcile
