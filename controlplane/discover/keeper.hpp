// SPDX-License-Identifier: Apache-2.0
// keeper: what sources have found for which services, merged with what is configured.
//
// - One source for all services that ask the same question. An answer is taken as a whole, for
//   each service by itself, or refused as a whole; what was known before stays then, as when there
//   is no answer.
// - What is configured goes before what is discovered at the same address. What an operator asked
//   of a discovered backend (service::discovered) holds as long as it is not taken back.
// - A backend that is in no answer any more is drained, for drain-deadline, or 30 s where the
//   service has none; then it goes.
// - What is known is handed on to be stored, and taken up after a restart.
//
// Threading: merge(), status() and problems(): any thread. All else: the loop's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/discover/source.hpp"

namespace sluice::discover {

using wall_time = std::chrono::system_clock::time_point;

// known: what is known of one service's backends.
struct known {
  struct vanished {
    model::backend backend;
    wall_time until;  // drained until then

    bool operator==(const vanished&) const = default;
  };
  std::vector<model::backend> backends;  // sorted by address
  std::vector<vanished> gone;

  bool operator==(const known&) const = default;
};

struct source_status {
  std::string type;
  std::string name;  // the DNS name, or the file
  std::vector<std::string> services;
  std::size_t backends{};  // of the last answer
  std::uint64_t answers{};
  std::uint64_t errors{};
  std::optional<wall_time> last_success;
  std::string problem;  // why there is no answer; empty: there is
};

class keeper {
 public:
  // news(): refresh() would find something. save(): nothing for a service without any.
  using on_news = std::function<void()>;
  using on_save = std::function<void(const std::string& service, const known* now)>;
  // check() says why a state with what was found cannot be; empty: it can.
  using checker = std::function<std::string(const model::desired_state& merged)>;

  keeper(event_loop& loop, on_news news, on_save save, source_factory make = make_source);
  ~keeper();
  keeper(const keeper&) = delete;
  keeper& operator=(const keeper&) = delete;

  // restore() takes up what was stored. Before set_services().
  void restore(const std::string& service, known before);
  // set_services() starts and stops sources as a desired state asks.
  void set_services(const model::desired_state& desired);
  // refresh() takes what has come since, as far as check() lets it; tells whether merge() has
  // something new.
  [[nodiscard]] bool refresh(const model::desired_state& desired, const checker& check);

  [[nodiscard]] model::desired_state merge(const model::desired_state& desired) const;
  // has() tells whether an address is a discovered backend of a service.
  [[nodiscard]] bool has(const std::string& service, const ip_address& address) const;
  [[nodiscard]] std::vector<source_status> status() const;
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  struct entry {  // a service
    std::string key;
    known now;
    std::optional<std::vector<model::backend>> pending;
    std::string problem;  // with the last answer
  };
  struct running {
    std::unique_ptr<discover::source> source;
    source_status status;
    std::optional<std::vector<found>> last;
  };
  void on_report(const std::string& key, report r);
  void offer(const model::service& s, entry& e, const std::vector<found>& answer);
  void tell_soon();
  void settle(const std::string& service, known next);
  void set_expiry();

  event_loop& loop_;
  on_news news_;
  on_save save_;
  source_factory make_;
  event_loop::timer_id news_timer_{0};
  event_loop::timer_id expiry_timer_{0};
  std::map<std::string, model::service> services_;  // that discover

  mutable std::mutex mutex_;  // for other threads; the loop's thread alone changes what follows
  std::map<std::string, entry> entries_;    // by service
  std::map<std::string, running> sources_;  // by key
};

}  // namespace sluice::discover
