// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/revisions.hpp"

#include <tuple>
#include <utility>

#include "controlplane/api/changes.hpp"
#include "controlplane/model/text.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t default_history = 100;
constexpr std::size_t most_history = 100'000;

json info_json(const store::revision_info& i) {
  return {{"revision", i.number},
          {"time", rfc3339(i.time)},
          {"author", i.author},
          {"reason", i.reason},
          {"changes", i.changes ? json(*i.changes) : json()}};
}

}  // namespace

reply no_revision(std::uint64_t number) {
  return refuse(404, "there is no revision " + std::to_string(number) +
                         ": see GET /v1/history (sluice history) for those that are kept");
}

tl::expected<store::revision, reply> get_revision(reconcile::controller& c, const std::string& text,
                                                  const std::string& key) {
  const auto number = parse_revision(text);
  if (!number) return tl::unexpected{refuse(400, "is the number of a revision", key)};
  // Before the first revision there was nothing.
  if (*number == 0) return store::revision{};
  auto found = c.keeper().get(*number);
  if (!found) return tl::unexpected{refuse(500, found.error())};
  if (!*found) return tl::unexpected{no_revision(*number)};
  return std::move(**found);
}

reply history(reconcile::controller& c, const request& r) {
  std::size_t limit = default_history;
  if (const auto text = r.parameter("limit")) {
    const auto number = parse_revision(*text);
    if (!number || *number < 1 || *number > most_history)
      return refuse(400, "is a number from 1 to " + std::to_string(most_history), "limit");
    limit = *number;
  }
  const auto revisions = c.keeper().history(limit);
  if (!revisions) return refuse(500, revisions.error());
  json list = json::array();
  for (const auto& i : *revisions) list.push_back(info_json(i));
  return ok({{"revisions", std::move(list)}});
}

reply show_revision(reconcile::controller& c, const std::string& number) {
  const auto it = get_revision(c, number, "revision");
  if (!it) return it.error();
  if (it->info.number == 0) return no_revision(0);
  const auto before = get_revision(c, std::to_string(it->info.number - 1), "revision");
  if (!before && before.error().status != 404) return before.error();
  json out = info_json(it->info);
  // The oldest revision that is kept has nothing to be compared with.
  out["changes"] = before ? changes_json(model::diff(before->state, it->state)) : json();
  return ok(out);
}

reply diff_revisions(reconcile::controller& c, const request& r) {
  const auto from = get_revision(c, r.parameter("from").value_or(""), "from");
  if (!from) return from.error();
  store::revision to;
  if (const auto text = r.parameter("to")) {
    auto found = get_revision(c, *text, "to");
    if (!found) return found.error();
    to = std::move(*found);
  } else {
    std::tie(to.info.number, to.state) = c.desired();
  }
  return ok({{"from", from->info.number},
             {"to", to.info.number},
             {"changes", changes_json(model::diff(from->state, to.state))}});
}

}  // namespace sluice::api
