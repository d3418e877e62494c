// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/stored.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"

namespace sluice::discover {

std::string to_text(const known& k) {
  nlohmann::ordered_json out;
  out["backends"] = nlohmann::ordered_json::array();
  for (const model::backend& b : k.backends) out["backends"].push_back(model::to_json(b));
  out["vanished"] = nlohmann::ordered_json::array();
  for (const auto& g : k.gone)
    out["vanished"].push_back({{"backend", model::to_json(g.backend)},
                               {"until_ms", std::chrono::duration_cast<std::chrono::milliseconds>(
                                                g.until.time_since_epoch())
                                                .count()}});
  return out.dump();
}

tl::expected<known, std::string> from_text(std::string_view text) {
  const auto fail = [] { return tl::unexpected{std::string{"is not what was stored"}}; };
  const auto all = nlohmann::json::parse(text, nullptr, false);
  if (!all.is_object() || !all.contains("backends") || !all["backends"].is_array() ||
      !all.contains("vanished") || !all["vanished"].is_array())
    return fail();
  const auto read = [](const nlohmann::json& j) {
    auto b = config::parse_backend(j.dump(), {});
    if (b) b->source = model::backend_source::discovered;
    return b;
  };
  known out;
  for (const auto& j : all["backends"]) {
    auto b = read(j);
    if (!b) return fail();
    out.backends.push_back(*b);
  }
  for (const auto& j : all["vanished"]) {
    if (!j.is_object() || !j.contains("backend") || !j.contains("until_ms") ||
        !j["until_ms"].is_number_integer())
      return fail();
    auto b = read(j["backend"]);
    if (!b) return fail();
    out.gone.push_back(
        {*b, wall_time{std::chrono::milliseconds{j["until_ms"].get<std::int64_t>()}}});
  }
  std::sort(out.backends.begin(), out.backends.end(),
            [](const auto& a, const auto& b) { return a.address < b.address; });
  return out;
}

}  // namespace sluice::discover
