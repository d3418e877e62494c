// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/events.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "controlplane/api/changes.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t most_recent = 4096;
constexpr std::size_t at_once = 256;  // events in one piece of a stream
constexpr std::array<std::string_view, 8> types{"revision", "health",  "tier",      "panic",
                                                "announce", "publish", "dataplane", "node"};

// filter: which events a client wants; empty: all.
struct filter {
  std::vector<std::string> types;
  std::string service;

  [[nodiscard]] bool takes(const events::event& e) const {
    if (!service.empty() && e.service != service) return false;
    return types.empty() || std::find(types.begin(), types.end(), e.type) != types.end();
  }
};

tl::expected<filter, reply> read_filter(const request& r) {
  filter f;
  f.service = r.parameter("service").value_or("");
  if (const auto text = r.parameter("type")) {
    std::string_view rest = *text;
    for (;;) {
      const std::string_view word = rest.substr(0, rest.find(','));
      if (std::find(types.begin(), types.end(), word) == types.end())
        return tl::unexpected{refuse(
            400, "is a list of revision, health, tier, panic, announce, publish, dataplane, node",
            "type")};
      f.types.emplace_back(word);
      if (word.size() == rest.size()) break;
      rest.remove_prefix(word.size() + 1);
    }
  }
  return f;
}

// sent() writes an event as server-sent events want it.
std::string sent(const events::event& e) {
  return "id: " + std::to_string(e.id) + "\nevent: " + e.type + "\ndata: " + dump(event_json(e)) +
         "\n\n";
}

}  // namespace

json event_json(const events::event& e) {
  json out = {{"id", e.id}, {"time", rfc3339(e.time)}, {"type", e.type}};
  if (!e.service.empty()) out["service"] = e.service;
  out.update(e.data);
  return out;
}

reply follow_events(const events::event_log& log, const request& r) {
  auto wanted = read_filter(r);
  if (!wanted) return wanted.error();
  std::uint64_t after = log.last();
  // What the browser or the client has seen last counts more than where it began.
  const bool resumed = !r.last_event_id.empty();
  const auto from = resumed ? std::optional{r.last_event_id} : r.parameter("after");
  if (from) {
    const auto number = parse_revision(*from);
    if (!number)
      return refuse(400, "is the number of an event", resumed ? "Last-Event-ID" : "after");
    after = *number;
  }
  reply out;
  out.type = "text/event-stream";
  out.headers.emplace_back("Cache-Control", "no-store");
  out.body = ":\n\n";  // so that a client knows at once that it is heard
  out.more = [&log, after, f = std::move(*wanted)](
                 std::chrono::milliseconds how_long) mutable -> std::optional<std::string> {
    const events::batch got = log.wait(after, at_once, how_long);
    std::string text;
    if (got.missed) {
      const std::uint64_t before = got.last - got.events.size();
      text = "id: " + std::to_string(before) + "\nevent: gap\ndata: " +
             dump({{"id", before},
                   {"time", rfc3339(std::chrono::system_clock::now())},
                   {"type", "gap"},
                   {"text", "events before this one are no longer kept"}}) +
             "\n\n";
    }
    for (const auto& e : got.events)
      if (f.takes(*e)) text += sent(*e);
    after = got.last;
    return text;
  };
  return out;
}

reply recent_events(const events::event_log& log, const request& r) {
  auto wanted = read_filter(r);
  if (!wanted) return wanted.error();
  std::size_t limit = 1000;
  if (const auto text = r.parameter("limit")) {
    const auto number = parse_revision(*text);
    if (!number || *number == 0 || *number > most_recent)
      return refuse(400, "is 1 to " + std::to_string(most_recent), "limit");
    limit = static_cast<std::size_t>(*number);
  }
  std::uint64_t after = 0;
  if (const auto text = r.parameter("after")) {
    const auto number = parse_revision(*text);
    if (!number) return refuse(400, "is the number of an event", "after");
    after = *number;
  }
  const events::batch all = log.read(after, most_recent);
  std::vector<const events::event*> taken;
  for (const auto& e : all.events)
    if (wanted->takes(*e)) taken.push_back(e.get());
  // With `after` a client goes on from there; without it wants the newest.
  const bool cut = taken.size() > limit;
  const bool goes_on = r.parameter("after").has_value();
  std::uint64_t last = all.last;
  if (cut && goes_on) {
    taken.resize(limit);
    last = taken.back()->id;
  } else if (cut) {
    taken.erase(taken.begin(), taken.end() - static_cast<std::ptrdiff_t>(limit));
  }
  json list = json::array();
  for (const auto* e : taken) list.push_back(event_json(*e));
  return ok({{"last", last}, {"missed", all.missed}, {"events", std::move(list)}});
}

}  // namespace sluice::api
