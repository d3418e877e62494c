// SPDX-License-Identifier: Apache-2.0
#include "controlplane/events/event_log.hpp"

#include <algorithm>
#include <utility>

namespace sluice::events {
namespace {

std::uint64_t microseconds_now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(since).count());
}

}  // namespace

event_log::event_log(std::size_t capacity) : event_log{capacity, microseconds_now()} {}

event_log::event_log(std::size_t capacity, std::uint64_t before_first)
    : capacity_{capacity}, last_{before_first} {}

void event_log::add(std::string type, std::string service, nlohmann::ordered_json data) {
  auto e = std::make_shared<event>();
  e->time = std::chrono::system_clock::now();
  e->type = std::move(type);
  e->service = std::move(service);
  e->data = std::move(data);
  std::shared_ptr<const event> dropped;  // freed without the lock
  {
    const std::lock_guard lock{mutex_};
    e->id = ++last_;
    kept_.push_back(std::move(e));
    if (kept_.size() > capacity_) {
      dropped = std::move(kept_.front());
      kept_.pop_front();
    }
  }
  added_.notify_all();
}

batch event_log::read_locked(std::uint64_t after, std::size_t most) const {
  batch out;
  // All that was: kept_ holds the numbers last_ - size + 1 to last_.
  const std::uint64_t oldest = last_ - kept_.size() + 1;
  // A number that is not given out yet is from a clock that was ahead.
  out.missed = after != 0 && (after + 1 < oldest || after > last_);
  const std::uint64_t from = after == 0 || out.missed ? oldest : after + 1;
  const auto skip = static_cast<std::size_t>(from - oldest);
  const std::size_t n = std::min(most, kept_.size() - skip);
  const auto first = kept_.begin() + static_cast<std::ptrdiff_t>(skip);
  out.events.assign(first, first + static_cast<std::ptrdiff_t>(n));
  out.last = from - 1 + n;
  return out;
}

batch event_log::read(std::uint64_t after, std::size_t most) const {
  const std::lock_guard lock{mutex_};
  return read_locked(after, most);
}

batch event_log::wait(std::uint64_t after, std::size_t most,
                      std::chrono::milliseconds how_long) const {
  std::unique_lock lock{mutex_};
  added_.wait_for(lock, how_long, [&] { return last_ != after; });
  return read_locked(after, most);
}

batch event_log::newest(std::size_t most) const {
  const std::lock_guard lock{mutex_};
  batch out;
  const std::size_t n = std::min(most, kept_.size());
  out.events.assign(kept_.end() - static_cast<std::ptrdiff_t>(n), kept_.end());
  out.last = last_;
  return out;
}

std::uint64_t event_log::last() const {
  const std::lock_guard lock{mutex_};
  return last_;
}

}  // namespace sluice::events
