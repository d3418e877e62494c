// SPDX-License-Identifier: Apache-2.0
// events: what happens, as it happens.
#include <iostream>

#include <fmt/format.h>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

struct event_options {
  std::string service;
  std::string types;
  std::string after;
  int recent{0};
};

std::string text_of(const json& e, const char* key) {
  return e.contains(key) ? cell_of(e[key]) : std::string{"-"};
}

// sentence() says an event in words.
std::string sentence(const json& e) {
  const std::string type = e.value("type", "");
  const std::string service = e.value("service", "");
  if (type == "revision")
    return fmt::format("revision {} by {}: {} changes{}{}", text_of(e, "revision"),
                       e.value("author", "").empty() ? "unknown" : e.value("author", ""),
                       text_of(e, "changes"), e.value("reason", "").empty() ? "" : ": ",
                       e.value("reason", ""));
  if (type == "health")
    return fmt::format("{}: backend {}: {} ({})", service, e.value("backend", ""),
                       e.value("health", ""), e.value("text", ""));
  if (type == "tier") {
    if (e.value("tier", json{}).is_null())
      return fmt::format("{}: no tier can serve any longer; it was tier {}", service,
                         text_of(e, "before"));
    return fmt::format("{}: new connections go to tier {}{}", service, text_of(e, "tier"),
                       e.value("before", json{}).is_null()
                           ? std::string{}
                           : ", no longer to tier " + text_of(e, "before"));
  }
  if (type == "panic")
    return service + (e.value("panic", false) ? ": too few backends can serve: health is ignored"
                                              : ": enough backends can serve again: health counts");
  if (type == "announce")
    return e.value("address", "") +
           (e.value("announced", false) ? ": announced" : ": withdrawn: " + e.value("reason", ""));
  if (type == "publish")
    return fmt::format("generation {}: {} tables built, {:.2f} ms", text_of(e, "generation"),
                       text_of(e, "tables_built"), e.value("ms", 0.0));
  if (type == "node")
    return (e.value("state", "") == "drained" ? "this node is drained, by "
                                              : "this node is back in, by ") +
           (e.value("author", "").empty() ? "unknown" : e.value("author", "")) +
           (e.value("reason", "").empty() ? "" : ": " + e.value("reason", ""));
  if (type == "dataplane")
    return fmt::format("{}{}", e.value("state", ""),
                       e.contains("pid") ? fmt::format(": process {}, {} workers",
                                                       text_of(e, "pid"), text_of(e, "workers"))
                                         : std::string{});
  return e.value("text", "");
}

void print_event(const context& c, const json& e) {
  if (c.output == format::table) {
    std::cout << fmt::format("{}  {:9}  {}\n", e.value("time", ""), e.value("type", ""),
                             sentence(e));
  } else {
    // One object on each line, so that a reader need not wait for the end; it is YAML, too.
    std::cout << (c.output == format::yaml_text ? "- " : "") << e.dump() << "\n";
  }
  std::cout.flush();
}

// follow() takes server-sent events apart: of each only its data matter here.
void follow(const context& c, const query& q) {
  std::string waiting;
  c.connect().follow("/v1/events", q, [&](std::string_view piece) {
    waiting += piece;
    for (std::size_t end = 0; (end = waiting.find('\n')) != std::string::npos;) {
      const std::string line = waiting.substr(0, end);
      waiting.erase(0, end + 1);
      constexpr std::string_view mark = "data: ";
      if (!line.starts_with(mark)) continue;
      const json e = json::parse(std::string_view{line}.substr(mark.size()), nullptr, false);
      if (e.is_object()) print_event(c, e);
    }
    return static_cast<bool>(std::cout);
  });
}

}  // namespace

void register_events(CLI::App& app, context& c) {
  static event_options o;
  CLI::App* events = app.add_subcommand(
      "events",
      "What happens, as it happens: revisions, verdicts of health checks, decisions,\n"
      "generations, the data plane. Until Ctrl-C; with --recent: the last ones, and no more.\n"
      "Example: sluice events --service web --type health,tier,panic");
  events->add_option("--service", o.service, "only what concerns this service")
      ->type_name("NAME")
      ->check(not_empty());
  events
      ->add_option(
          "--type", o.types,
          "only these of revision, health, tier, panic, announce, publish, dataplane, node")
      ->type_name("TYPE,...")
      ->check(not_empty());
  CLI::Option* recent =
      events->add_option("--recent", o.recent, "show the last N that there were, and end")
          ->type_name("N")
          ->check(CLI::Range(1, 4096));
  events->add_option("--after", o.after, "begin after the event with this number (its id)")
      ->type_name("ID")
      ->check(revision_number())
      ->excludes(recent);
  add_output(*events, c);
  events->callback([&c] {
    query q;
    if (!o.service.empty()) q.emplace_back("service", o.service);
    if (!o.types.empty()) q.emplace_back("type", o.types);
    if (!o.after.empty()) q.emplace_back("after", o.after);
    if (o.recent == 0) return follow(c, q);
    q.emplace_back("limit", std::to_string(o.recent));
    for (const json& e : c.connect().get("/v1/events/recent", q).value("events", json::array()))
      print_event(c, e);
  });
}

}  // namespace sluice::cli
