// SPDX-License-Identifier: Apache-2.0
// The load: N connections in one epoll loop, each with one request under way at a time.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

#include "tests/end_to_end/flowgen/options.hpp"
#include "tests/end_to_end/flowgen/report.hpp"
#include "tests/end_to_end/flowgen/response.hpp"

namespace sluice::flowgen {

class client {
 public:
  explicit client(client_options options);
  ~client();
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  // run() returns when the limit of the options is reached and every answer is there or
  // overdue, or after SIGTERM.
  [[nodiscard]] report run();

 private:
  enum class state : std::uint8_t { closed, connecting, ready, waiting };

  struct connection {
    std::size_t index{};
    int fd{-1};
    state now{state::closed};
    bool is_download{};
    bool downloaded{};
    std::int64_t due{};          // when the next request shall be sent
    std::int64_t sent{};         // when the present one was due to be sent
    std::int64_t last_answer{};  // of this connection (download: the last data)
    std::int64_t longest_gap{};
    std::uint64_t timer{};  // the newest timer's number: older ones are void
    std::uint64_t sequence{};
    unsigned requests{};  // answered on this connection
    std::string local;
    std::string backend;
    std::string line;
    http_response response;
    download result;
  };

  struct timer {
    std::int64_t at;
    std::size_t index;
    std::uint64_t number;
    bool operator>(const timer& other) const { return at > other.at; }
  };

  void arm(connection& c, std::int64_t at);
  void on_timer(connection& c);
  void on_event(connection& c, std::uint32_t events);
  void begin_request(connection& c);
  bool open(connection& c);
  void send_request(connection& c);
  void receive(connection& c);
  bool take(connection& c, std::string_view data);
  bool take_line(connection& c, std::string_view data);
  void answered(connection& c, const std::string& backend);
  void fail(connection& c, const char* kind);
  void schedule_next(connection& c);
  void close_connection(connection& c);
  void watch(connection& c, std::uint32_t events);
  [[nodiscard]] bool more_to_send() const;
  void write_log(const connection& c, const char* outcome);

  client_options options_;
  report report_;
  int epoll_{-1};
  std::int64_t begin_{};
  std::int64_t end_{};
  std::int64_t interval_{};  // between the requests of one connection
  std::uint64_t issued_{};
  std::size_t under_way_{};
  std::size_t answered_first_{};
  bool stopping_{};
  std::FILE* log_{};
  std::uint64_t next_timer_{1};
  std::vector<connection> connections_;
  std::priority_queue<timer, std::vector<timer>, std::greater<>> timers_;
};

}  // namespace sluice::flowgen
