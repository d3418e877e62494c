// SPDX-License-Identifier: Apache-2.0
// publication: the newest published state, and its way to the workers. What changes together
// shares a generation, and so does what follows within a millisecond; while workers are
// stuck, it is tried again, always with the newest state.
//
// Threading: the loop's thread; counters() are read by any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <tl/expected.hpp>

#include "controlplane/events/event_log.hpp"
#include "controlplane/loop/event_loop.hpp"
#include "controlplane/publish/config_writer.hpp"
#include "controlplane/publish/observations.hpp"
#include "controlplane/publish/published_state.hpp"
#include "controlplane/reconcile/latency.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::reconcile {

struct publish_counters {
  std::atomic<std::uint64_t> published{0};
  std::atomic<std::uint64_t> deferred{0};  // tries that found a worker stuck
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> tables_built{0};
  latency_histogram build;    // publish() itself
  latency_histogram verdict;  // from a verdict until all workers use what follows from it
};

class publication {
 public:
  // on_published is called after each generation.
  publication(event_loop& loop, std::shared_ptr<publish::observation_follower> observations,
              events::event_log& events, std::function<void()> on_published);
  ~publication();
  publication(const publication&) = delete;
  publication& operator=(const publication&) = delete;

  // open() takes up the segment of before, or makes one. Before all else.
  [[nodiscard]] tl::expected<void, std::string> open(const node_config& node,
                                                     const publish::writer_settings& settings);

  // state() is what soon() and now() publish.
  [[nodiscard]] publish::published_state& state() noexcept { return state_; }
  void soon();
  void now();
  // note_verdict() remembers when the oldest verdict was made that is not published yet.
  void note_verdict(event_loop::time_point decided) {
    if (!oldest_verdict_) oldest_verdict_ = decided;
  }

  [[nodiscard]] publish::config_writer& writer() noexcept { return *writer_; }
  // current(): state() is published.
  [[nodiscard]] bool current() const noexcept { return current_; }
  // problem() says why it is not, for longer than is worth a word; empty: no problem.
  [[nodiscard]] std::string problem() const {
    return problem_logged_ ? publish_problem_ : std::string{};
  }
  [[nodiscard]] const publish_counters& counters() const noexcept { return counters_; }

 private:
  void failed(const publish::publish_result& done);
  void await_workers();

  event_loop& loop_;
  std::shared_ptr<publish::observation_follower> observations_;
  events::event_log& events_;
  std::function<void()> on_published_;
  publish_counters counters_;
  std::unique_ptr<publish::config_writer> writer_;
  publish::published_state state_;
  bool current_{false};
  std::string publish_problem_;
  std::optional<event_loop::time_point> problem_since_;
  bool problem_logged_{false};
  event_loop::timer_id publish_timer_{0};
  bool publish_posted_{false};                                // to the loop, in place of the timer
  event_loop::time_point published_at_{};                     // or tried to
  std::shared_ptr<bool> here_{std::make_shared<bool>(true)};  // gone when this is
  std::optional<event_loop::time_point> oldest_verdict_;      // not yet published
  std::optional<event_loop::time_point> awaited_verdict_;     // published, not yet in use
  std::uint64_t awaited_{0};                                  // generation
  event_loop::timer_id await_timer_{0};
};

}  // namespace sluice::reconcile
