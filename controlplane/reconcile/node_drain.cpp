// SPDX-License-Identifier: Apache-2.0
#include "controlplane/reconcile/node_drain.hpp"

#include <nlohmann/json.hpp>

namespace sluice::reconcile {
namespace {

using drain_json = nlohmann::json;

constexpr const char* fact_name = "node-drain";

}  // namespace

node_drain load_node_drain(state_keeper& keeper) {
  const drain_json kept = drain_json::parse(keeper.remembered(fact_name), nullptr, false);
  if (!kept.is_object()) return {};
  const auto text = [&kept](const char* key) {
    const auto it = kept.find(key);
    return it != kept.end() && it->is_string() ? it->get<std::string>() : std::string{};
  };
  node_drain out;
  out.drained = kept.value("drained", drain_json()) == drain_json(true);
  if (const auto it = kept.find("time_ms"); it != kept.end() && it->is_number_integer())
    out.time =
        std::chrono::system_clock::time_point{std::chrono::milliseconds{it->get<std::int64_t>()}};
  out.author = text("author");
  out.reason = text("reason");
  return out;
}

store::result<void> save_node_drain(state_keeper& keeper, const node_drain& drain) {
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(drain.time.time_since_epoch());
  const drain_json out{{"drained", drain.drained},
                       {"time_ms", ms.count()},
                       {"author", drain.author},
                       {"reason", drain.reason}};
  return keeper.remember(fact_name, out.dump(-1, ' ', false, drain_json::error_handler_t::replace));
}

}  // namespace sluice::reconcile
