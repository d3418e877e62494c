// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/message.hpp"

#include <ctime>

#include <fmt/format.h>

namespace sluice::api {

std::string dump(const json& body) {
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

reply ok(const json& body) {
  return {200, dump(body) + "\n", "application/json"};
}

reply refuse(int status, const std::vector<config_error>& errors) {
  json list = json::array();
  for (const auto& e : errors)
    list.push_back({{"file", e.file}, {"line", e.line}, {"key", e.key}, {"message", e.message}});
  return {status, dump({{"errors", std::move(list)}}) + "\n", "application/json"};
}

reply refuse(int status, std::string message, std::string key) {
  return refuse(status, {config_error{{}, 0, std::move(key), std::move(message)}});
}

std::string rfc3339(std::chrono::system_clock::time_point t) {
  using namespace std::chrono;
  const auto since = duration_cast<milliseconds>(t.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(since / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     since % 1000);
}

std::string hex(std::uint64_t v) {
  return fmt::format("{:016x}", v);
}

}  // namespace sluice::api
