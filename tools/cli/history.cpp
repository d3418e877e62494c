// SPDX-License-Identifier: Apache-2.0
// history, rollback: the revisions of the desired state.
#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

struct history_options {
  std::string revision;  // history, rollback
  std::string reason;
  std::string expected;
  int limit{20};
  bool dry_run{false};
};

void show_revision(const context& c, const std::string& number) {
  const json answer = c.connect().get("/v1/history/" + number);
  if (c.output != format::table) return print_object(std::cout, c.output, answer);
  print_pairs(std::cout,
              {field("revision", "revision"), field("time", "time"), field("author", "author"),
               field("reason", "reason")},
              answer);
  if (answer.value("changes", json{}).is_null()) {
    std::cout << "the revision before it is no longer kept: nothing to compare with\n";
  } else {
    print_diff(c, answer);
  }
}

void list_revisions(const context& c, int limit) {
  const json answer = c.connect().get("/v1/history", {{"limit", std::to_string(limit)}});
  if (c.output != format::table) return print_object(std::cout, c.output, answer);
  print_table(std::cout,
              {number("REVISION", "revision"), field("TIME", "time"), field("AUTHOR", "author"),
               number("CHANGES", "changes"), field("REASON", "reason")},
              answer.value("revisions", json::array()), "no revision yet");
}

}  // namespace

CLI::Validator revision_number() {
  return CLI::Validator{
      [](const std::string& text) {
        const bool digits =
            !text.empty() && text.size() < 19 &&
            std::all_of(text.begin(), text.end(), [](char ch) { return ch >= '0' && ch <= '9'; });
        return digits ? std::string{} : "\"" + text + "\" is not the number of a revision";
      },
      ""};
}

void register_history(CLI::App& app, context& c) {
  static history_options o;

  CLI::App* history = app.add_subcommand(
      "history",
      "Revisions of the desired state, newest first: when, by whom, why. With REVISION: what\n"
      "that one changed.\n"
      "Example: sluice history --limit 5");
  history->add_option("REVISION", o.revision, "show what this one changed")
      ->check(revision_number());
  history->add_option("--limit", o.limit, "how many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  add_output(*history, c);
  history->callback([&c] {
    if (o.revision.empty()) return list_revisions(c, o.limit);
    show_revision(c, o.revision);
  });

  CLI::App* rollback = app.add_subcommand(
      "rollback",
      "Make the state of an old revision the desired state again. It becomes a new revision:\n"
      "nothing is lost, and a rollback can be rolled back.\n"
      "Example: sluice rollback 41 --dry-run");
  rollback->add_option("REVISION", o.revision, "the revision to go back to")
      ->required()
      ->check(revision_number());
  rollback->add_flag("--dry-run", o.dry_run, "only say what would change");
  rollback->add_option("--reason", o.reason, "kept with the revision")->type_name("TEXT");
  rollback
      ->add_option("--if-revision", o.expected, "refuse if this is no longer the newest revision")
      ->type_name("N")
      ->check(revision_number());
  add_output(*rollback, c);
  rollback->callback([&c] {
    client api = c.connect();
    api.set_reason(o.reason);
    api.set_expected(o.expected);
    query q{{"revision", o.revision}};
    if (o.dry_run) q.emplace_back("dry_run", "1");
    print_changes(c, api.post("/v1/rollback", json::object(), q), o.dry_run);
  });
}

}  // namespace sluice::cli
