// SPDX-License-Identifier: Apache-2.0
#include "controlplane/loop/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

namespace sluice {

namespace {

constexpr std::size_t batch_size = 256;

std::error_code last_error() noexcept {
  return {errno, std::system_category()};
}

// The generation tells an event of a descriptor number's earlier life from one of its present life.
std::uint64_t event_tag(int fd, std::uint32_t generation) noexcept {
  return (std::uint64_t{generation} << 32) | static_cast<std::uint32_t>(fd);
}

event_loop::time_point round_up(event_loop::time_point t) noexcept {
  const auto since = t.time_since_epoch();
  const auto whole = since - since % event_loop::tick;
  return event_loop::time_point{whole == since ? whole : whole + event_loop::tick};
}

}  // namespace

event_loop::event_loop() {
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  std::error_code bad;
  if (epoll_fd_ < 0 || wake_fd_ < 0 || timer_fd_ < 0) bad = last_error();
  // Both are drained by dispatch_once() itself: no callback.
  if (!bad) bad = add_fd(wake_fd_, EPOLLIN, {});
  if (!bad) bad = add_fd(timer_fd_, EPOLLIN, {});
  if (bad) {
    for (const int fd : {epoll_fd_, wake_fd_, timer_fd_})
      if (fd >= 0) ::close(fd);
    throw std::system_error(bad, "event loop");
  }
  thread_.store(std::this_thread::get_id(), std::memory_order_release);
}

event_loop::~event_loop() {
  // Dropped tasks release those that wait for them in invoke().
  std::vector<task> dropped;
  {
    const std::lock_guard lock{posted_mutex_};
    dropped.swap(posted_);
  }
  dropped.clear();
  for (const int fd : {timer_fd_, wake_fd_, epoll_fd_}) ::close(fd);
}

void event_loop::run() {
  struct owner_guard {
    std::atomic<std::thread::id>& id;
    std::thread::id before;
    ~owner_guard() { id.store(before, std::memory_order_release); }
  };
  const owner_guard guard{thread_, thread_.load(std::memory_order_acquire)};
  thread_.store(std::this_thread::get_id(), std::memory_order_release);
  do {
    dispatch_once();
  } while (!stop_.exchange(false, std::memory_order_acq_rel));
}

void event_loop::run_for(duration d) {
  const timer_id end = call_after(d, [this] { stop(); });
  run();
  cancel(end);
}

void event_loop::stop() noexcept {
  stop_.store(true, std::memory_order_release);
  wake();
}

void event_loop::wake() noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the loop is awake anyway.
  [[maybe_unused]] const auto n = ::write(wake_fd_, &one, sizeof one);
}

void event_loop::post(task fn) {
  // Woken inside the lock: after it the loop may be gone, if its owner ends it now.
  const std::lock_guard lock{posted_mutex_};
  const bool first = posted_.empty();
  posted_.push_back(std::move(fn));
  if (first) wake();
}

bool event_loop::in_loop_thread() const noexcept {
  return thread_.load(std::memory_order_acquire) == std::this_thread::get_id();
}

std::error_code event_loop::add_fd(int fd, std::uint32_t events, fd_callback fn) {
  if (fd < 0) return std::make_error_code(std::errc::bad_file_descriptor);
  const auto index = static_cast<std::size_t>(fd);
  if (index >= fds_.size()) fds_.resize(index + 1);
  if (fds_[index]) return std::make_error_code(std::errc::file_exists);
  const std::uint32_t generation = next_generation_++;
  auto entry = std::make_unique<watched_fd>(watched_fd{std::move(fn), generation});
  epoll_event ev{};
  ev.events = events;
  ev.data.u64 = event_tag(fd, generation);
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &ev) != 0) return last_error();
  fds_[index] = std::move(entry);
  return {};
}

std::error_code event_loop::modify_fd(int fd, std::uint32_t events) {
  const auto index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= fds_.size() || !fds_[index])
    return std::make_error_code(std::errc::bad_file_descriptor);
  epoll_event ev{};
  ev.events = events;
  ev.data.u64 = event_tag(fd, fds_[index]->generation);
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &ev) != 0) return last_error();
  return {};
}

void event_loop::remove_fd(int fd) noexcept {
  const auto index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= fds_.size() || !fds_[index]) return;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  // The callback may be the one that is running: it must outlive its own call.
  graveyard_.push_back(std::move(fds_[index]));
}

event_loop::timer_id event_loop::call_at(time_point t, task fn) {
  // Not in the past: a timer that renews itself there would stay ahead of all others.
  return timers_.add(round_up(std::max(t, now())), std::move(fn));
}

event_loop::timer_id event_loop::call_after(duration d, task fn) {
  return call_at(now() + d, std::move(fn));
}

bool event_loop::cancel(timer_id id) noexcept {
  return timers_.cancel(id);
}

void event_loop::arm_timer() noexcept {
  const time_point next = timers_.earliest();
  // A later earliest (after a cancel) costs one idle wakeup; re-arming would cost a
  // system call each time.
  if (next >= armed_) return;
  const auto since = next.time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since);
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(whole.count());
  spec.it_value.tv_nsec = static_cast<long>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(since - whole).count());
  // All zero would disarm it.
  if (spec.it_value.tv_sec <= 0 && spec.it_value.tv_nsec <= 0) spec.it_value = {0, 1};
  ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &spec, nullptr);
  armed_ = next;
}

void event_loop::run_timers() {
  // A batch as large as that of the descriptors: when the loop is late, answers that are
  // waiting to be read must not fall behind the timers that would call them missing.
  const time_point t = now();
  task fn;
  for (std::size_t left = batch_size; left > 0 && timers_.pop_due(t, fn); --left) {
    fn();
    fn = nullptr;
  }
}

void event_loop::run_posted() {
  std::vector<task> batch;
  {
    const std::lock_guard lock{posted_mutex_};
    batch.swap(posted_);
  }
  // If a task throws, those behind it go back in front of the queue.
  struct put_back {
    event_loop& self;
    std::vector<task>& batch;
    std::size_t done{0};
    ~put_back() {
      if (done == batch.size()) return;
      const std::lock_guard lock{self.posted_mutex_};
      const auto from = batch.begin() + static_cast<std::ptrdiff_t>(done);
      self.posted_.insert(self.posted_.begin(), std::make_move_iterator(from),
                          std::make_move_iterator(batch.end()));
      self.wake();
    }
  } guard{*this, batch};
  while (guard.done < batch.size()) batch[guard.done++]();
}

void event_loop::dispatch_once() {
  std::array<epoll_event, batch_size> events;
  arm_timer();
  const int n = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), -1);
  if (n < 0) {
    if (errno == EINTR) return;
    throw std::system_error(last_error(), "epoll_wait");
  }
  ++wakeups_;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    const auto fd = static_cast<int>(static_cast<std::uint32_t>(events[i].data.u64));
    std::uint64_t count;
    if (fd == wake_fd_) {
      [[maybe_unused]] const auto r = ::read(fd, &count, sizeof count);
    } else if (fd == timer_fd_) {
      if (::read(fd, &count, sizeof count) == sizeof count) armed_ = time_point::max();
    } else {
      watched_fd* const entry = fds_[static_cast<std::size_t>(fd)].get();
      if (entry != nullptr &&
          entry->generation == static_cast<std::uint32_t>(events[i].data.u64 >> 32))
        entry->fn(events[i].events);
    }
  }
  run_timers();
  run_posted();
  graveyard_.clear();
}

}  // namespace sluice
