// SPDX-License-Identifier: Apache-2.0
// event_log: the last things that happened, for those who follow them. Whoever adds never
// waits for a reader; a reader that is too slow learns that it has missed something.
// Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace sluice::events {

struct event {
  std::uint64_t id{};
  std::chrono::system_clock::time_point time;
  std::string type;
  std::string service;          // empty: of none
  nlohmann::ordered_json data;  // an object
};

// batch: what a reader gets.
struct batch {
  std::vector<std::shared_ptr<const event>> events;  // oldest first
  std::uint64_t last{};                              // to ask for what is newer than
  bool missed{};                                     // some that were asked for are gone
};

class event_log {
 public:
  // Numbers begin with the time of the start, so that they grow from one run to the next.
  explicit event_log(std::size_t capacity = 4096);
  event_log(std::size_t capacity, std::uint64_t before_first);

  void add(std::string type, std::string service, nlohmann::ordered_json data);
  // read() returns the oldest `most` events that are newer than `after`; 0: all that are kept.
  [[nodiscard]] batch read(std::uint64_t after, std::size_t most) const;
  // wait() is read() that waits for the first one, for that long.
  [[nodiscard]] batch wait(std::uint64_t after, std::size_t most,
                           std::chrono::milliseconds how_long) const;
  // newest() returns the newest `most` events.
  [[nodiscard]] batch newest(std::size_t most) const;
  [[nodiscard]] std::uint64_t last() const;

 private:
  [[nodiscard]] batch read_locked(std::uint64_t after, std::size_t most) const;

  const std::size_t capacity_;
  mutable std::mutex mutex_;
  mutable std::condition_variable added_;
  std::deque<std::shared_ptr<const event>> kept_;  // guarded by mutex_, as last_
  std::uint64_t last_;
};

}  // namespace sluice::events
