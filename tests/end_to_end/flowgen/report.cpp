// SPDX-License-Identifier: Apache-2.0
#include "tests/end_to_end/flowgen/report.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

namespace sluice::flowgen {
namespace {

using json = nlohmann::ordered_json;

template <typename T>
json percentiles(std::vector<T>& values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {{"min", values.front()}, {"mean", sum / static_cast<double>(values.size())},
          {"p50", at(0.5)},        {"p99", at(0.99)},
          {"p999", at(0.999)},     {"max", values.back()}};
}

}  // namespace

std::string to_json(report& r) {
  json out;
  out["started"] = r.started;
  out["seconds"] = r.seconds;
  out["requests_ok"] = r.requests_ok;
  out["requests_failed"] = r.requests_failed;
  out["connections_opened"] = r.connections_opened;
  out["connections_broken"] = r.connections_broken;
  out["backend_changes"] = r.backend_changes;
  out["latency_us"] = percentiles(r.latencies_us);
  out["longest_gap_ms"] = percentiles(r.gaps_ms);
  out["backends"] = json::object();
  for (const auto& [name, count] : r.backends)
    out["backends"][name] = {{"requests", count.requests}, {"connections", count.connections}};
  out["failures_by_kind"] = r.failures_by_kind;
  out["failures"] = json::array();
  for (const auto& f : r.failures)
    out["failures"].push_back(
        {{"time", f.time}, {"kind", f.kind}, {"local", f.local}, {"backend", f.backend}});
  out["downloads"] = json::array();
  for (const auto& d : r.downloads)
    out["downloads"].push_back({{"bytes", d.bytes},
                                {"crc32", d.crc32},
                                {"complete", d.complete},
                                {"seconds", d.seconds},
                                {"longest_gap_ms", d.longest_gap_ms},
                                {"backend", d.backend},
                                {"local", d.local},
                                {"error", d.error}});
  return out.dump();
}

}  // namespace sluice::flowgen
