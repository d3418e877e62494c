// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/routes.hpp"

#include <algorithm>

namespace sluice::api {
namespace {

constexpr route all[] = {
    {"GET", "/v1/version"},
    {"GET", "/v1/openapi.json"},
    {"GET", "/v1/status"},
    {"GET", "/v1/services"},
    {"POST", "/v1/services"},
    {"GET", "/v1/services/{service}"},
    {"PATCH", "/v1/services/{service}"},
    {"DELETE", "/v1/services/{service}"},
    {"GET", "/v1/services/{service}/backends"},
    {"POST", "/v1/services/{service}/backends"},
    {"PATCH", "/v1/services/{service}/backends/{address}"},
    {"DELETE", "/v1/services/{service}/backends/{address}"},
    {"POST", "/v1/services/{service}/backends/{address}/drain"},
    {"POST", "/v1/services/{service}/backends/{address}/undrain"},
    {"GET", "/v1/backends"},
    {"POST", "/v1/heartbeats"},
    {"GET", "/v1/workers"},
    {"GET", "/v1/ports"},
    {"GET", "/v1/nodes"},
    {"POST", "/v1/node/drain"},
    {"POST", "/v1/node/undrain"},
    {"GET", "/v1/config"},
    {"PUT", "/v1/config"},
    {"GET", "/v1/stats"},
    {"GET", "/v1/drops"},
    {"GET", "/v1/counters"},
    {"GET", "/v1/connections"},
    {"GET", "/v1/connections/count"},
    {"POST", "/v1/connections/flush"},
    {"GET", "/v1/explain"},
    {"GET", "/v1/history"},
    {"GET", "/v1/history/{revision}"},
    {"GET", "/v1/diff"},
    {"POST", "/v1/rollback"},
    {"GET", "/v1/backups"},
    {"POST", "/v1/backups"},
    {"GET", "/v1/events"},
    {"GET", "/v1/events/recent"},
    {"GET", "/ui"},
    {"GET", "/ui/{file}"},
};

bool fits(std::string_view path, const std::vector<std::string>& segments) {
  for (const std::string& segment : segments) {
    if (path.empty()) return false;
    path.remove_prefix(1);  // the '/'
    const std::string_view expected = path.substr(0, path.find('/'));
    if (!expected.starts_with('{') && expected != segment) return false;
    path.remove_prefix(expected.size());
  }
  return path.empty();
}

}  // namespace

std::span<const route> routes() noexcept {
  return all;
}

std::optional<reply> no_route(const request& r) {
  std::vector<std::string_view> possible;
  for (const route& candidate : all) {
    if (!fits(candidate.path, r.segments)) continue;
    if (candidate.method == r.method) return std::nullopt;
    possible.push_back(candidate.method);
  }
  if (possible.empty()) return refuse(404, "there is no such call: see docs/api.md");
  std::string allow;
  std::string words;
  for (std::size_t i = 0; i < possible.size(); ++i) {
    if (i > 0) allow += ", ";
    allow += possible[i];
    if (i > 0) words += i + 1 < possible.size() ? ", " : " or ";
    words += possible[i];
  }
  reply no = refuse(405, r.method + " is not possible here; " + words + " is");
  no.headers.emplace_back("Allow", std::move(allow));
  return no;
}

}  // namespace sluice::api
