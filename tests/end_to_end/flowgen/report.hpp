// SPDX-License-Identifier: Apache-2.0
// What flowgen has seen, and its JSON.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace sluice::flowgen {

struct failure {
  double time{};     // seconds since 1970, when it was noticed
  std::string kind;  // refused, timeout, reset, closed, status, response, error
  std::string local;
  std::string backend;  // that the connection was with; empty: none had answered yet
};

struct download {
  std::uint64_t bytes{};
  std::uint32_t crc32{};
  bool complete{};
  double seconds{};
  double longest_gap_ms{};
  std::string backend;
  std::string local;
  std::string error;
};

struct backend_count {
  std::uint64_t requests{};
  std::uint64_t connections{};
};

struct report {
  static constexpr std::size_t max_failures = 1000;

  double started{};  // seconds since 1970
  double seconds{};
  std::uint64_t requests_ok{};
  std::uint64_t requests_failed{};
  std::uint64_t connections_opened{};  // that have been established
  std::uint64_t connections_broken{};  // reset or closed by the other side, also while idle
  std::uint64_t backend_changes{};     // a connection was answered by another backend
  std::vector<std::uint64_t> latencies_us;
  std::vector<double> gaps_ms;  // the longest between two answers, of each connection
  std::map<std::string, backend_count> backends;
  std::map<std::string, std::uint64_t> failures_by_kind;
  std::vector<failure> failures;  // the first max_failures
  std::vector<download> downloads;
};

// to_json() returns the report as one line. Sorts what it takes percentiles of.
[[nodiscard]] std::string to_json(report& r);

}  // namespace sluice::flowgen
