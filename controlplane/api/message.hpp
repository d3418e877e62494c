// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the HTTP API, without HTTP: what the router works on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::api {

using json = nlohmann::ordered_json;

struct request {
  std::string method;                 // GET, PUT, POST, PATCH, DELETE, ...
  std::vector<std::string> segments;  // of the path, decoded: {"v1", "services", "web"}
  std::map<std::string, std::string> query;
  std::string body;
  std::string author;
  std::string reason;
  std::string if_match;       // the header; empty: not there
  std::string last_event_id;  // likewise

  // parameter() returns the value of a key of the query; nothing when it is not there.
  [[nodiscard]] std::optional<std::string> parameter(const std::string& key) const {
    const auto at = query.find(key);
    return at == query.end() ? std::nullopt : std::optional{at->second};
  }
};

// piece_source is the rest of an answer that goes on: the next piece, empty when there was
// none within `wait`; nothing at its end. Called by one thread.
using piece_source = std::function<std::optional<std::string>(std::chrono::milliseconds wait)>;

struct reply {
  int status{200};
  std::string body;
  std::string type{"application/json"};
  std::string etag{};  // the header; empty: none
  std::vector<std::pair<std::string, std::string>> headers{};
  piece_source more{};  // then `body` is what it begins with
};

[[nodiscard]] reply ok(const json& body);
// refuse() writes the errors as docs/api.md says.
[[nodiscard]] reply refuse(int status, const std::vector<config_error>& errors);
[[nodiscard]] reply refuse(int status, std::string message, std::string key = {});

// dump() never throws: bytes that are not UTF-8 are replaced.
[[nodiscard]] std::string dump(const json& body);
// rfc3339() writes a time in UTC, to the millisecond.
[[nodiscard]] std::string rfc3339(std::chrono::system_clock::time_point t);
[[nodiscard]] std::string hex(std::uint64_t v);

}  // namespace sluice::api
