// SPDX-License-Identifier: Apache-2.0
// event_loop: one thread, one epoll instance, many file descriptors and timers.
// Health checks, netlink and the reconciler live on one of these.
//
// Threading: post(), invoke() and stop() may be called from any thread. All
// else belongs to the loop's thread: the one inside run(), or the one that made
// the loop while nobody is in run(). Callbacks run on the loop's thread, one at a
// time, and must not block.
// Errors: the constructor throws std::system_error; an exception that leaves a
// callback leaves run(), and run() may be called again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "controlplane/loop/timer_heap.hpp"

namespace sluice {

class event_loop {
 public:
  using clock = std::chrono::steady_clock;
  using time_point = clock::time_point;
  using duration = clock::duration;
  using task = std::function<void()>;
  // events: the epoll bits that are set (EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, ...).
  using fd_callback = std::function<void(std::uint32_t events)>;
  using timer_id = loop::timer_heap::id;  // 0 names no timer

  // Timers are rounded up to this, so that thousands of them share few wakeups.
  // No timer fires early.
  static constexpr duration tick = std::chrono::milliseconds{1};

  event_loop();
  ~event_loop();
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;

  // run() handles events until stop(); a stop() that came before makes it
  // return after the tasks posted so far. May be called again afterwards.
  void run();
  // stop() makes run() return after the callbacks that are being handled.
  void stop() noexcept;
  // run_for() is run() with an end: for tests and for orderly shutdown.
  void run_for(duration d);

  // post() has fn called on the loop's thread, in the order of posting. Any thread.
  void post(task fn);
  // in_loop_thread() is true on the loop's thread, as said above.
  [[nodiscard]] bool in_loop_thread() const noexcept;
  // invoke() calls fn on the loop's thread and returns what it returns (or throws what
  // it throws); on that thread it is a plain call. Another thread waits until the loop
  // gets to it, also when run() has yet to begin; std::future_error is thrown when the
  // loop is destroyed first.
  template <class Fn>
  auto invoke(Fn&& fn) -> std::invoke_result_t<Fn&>;

  // add_fd() watches fd for events (epoll bits; level-triggered unless EPOLLET is
  // given). The loop does not own fd: remove_fd() it before closing it.
  [[nodiscard]] std::error_code add_fd(int fd, std::uint32_t events, fd_callback fn);
  [[nodiscard]] std::error_code modify_fd(int fd, std::uint32_t events);
  // remove_fd() ignores a descriptor that is not watched. No callback of fd runs
  // after it, also when an event of it was already fetched.
  void remove_fd(int fd) noexcept;

  // call_at() has fn called once at or after t; call_after() after d from now.
  timer_id call_at(time_point t, task fn);
  timer_id call_after(duration d, task fn);
  // cancel() is false when the timer has fired, was cancelled or never was.
  bool cancel(timer_id id) noexcept;

  [[nodiscard]] static time_point now() noexcept { return clock::now(); }
  [[nodiscard]] std::size_t timers() const noexcept { return timers_.size(); }
  // wakeups() counts returns from epoll_wait, to show that nothing spins.
  [[nodiscard]] std::uint64_t wakeups() const noexcept { return wakeups_; }

 private:
  struct watched_fd {
    fd_callback fn;
    std::uint32_t generation{};
  };

  void wake() noexcept;
  void run_posted();
  void run_timers();
  void arm_timer() noexcept;
  void dispatch_once();

  int epoll_fd_{-1};
  int wake_fd_{-1};
  int timer_fd_{-1};
  std::vector<std::unique_ptr<watched_fd>> fds_;        // indexed by descriptor
  std::vector<std::unique_ptr<watched_fd>> graveyard_;  // removed while events are handled
  std::uint32_t next_generation_{1};
  loop::timer_heap timers_;
  time_point armed_{time_point::max()};
  std::uint64_t wakeups_{0};

  std::mutex posted_mutex_;
  std::vector<task> posted_;  // guarded by posted_mutex_
  std::atomic<bool> stop_{false};
  std::atomic<std::thread::id> thread_{};
};

template <class Fn>
auto event_loop::invoke(Fn&& fn) -> std::invoke_result_t<Fn&> {
  using result = std::invoke_result_t<Fn&>;
  if (in_loop_thread()) return fn();
  // Shared with the task: a task dropped with the loop breaks the promise.
  auto work = std::make_shared<std::packaged_task<result()>>(std::ref(fn));
  auto answer = work->get_future();
  post([work = std::move(work)] { (*work)(); });
  return answer.get();
}

}  // namespace sluice
