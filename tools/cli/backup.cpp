// SPDX-License-Identifier: Apache-2.0
// backup create|list|verify, restore. create is done by the control plane, which has the
// state file open; the others read the directory themselves.
#include "controlplane/backup/restore.hpp"

#include <pwd.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include <fmt/format.h>

#include "controlplane/backup/time_text.hpp"
#include "controlplane/backup/verify.hpp"
#include "controlplane/config/config.hpp"
#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

struct backup_options {
  std::string kind, to, copy_to, copy{"sync"};
  std::string from;
  std::string revision, at, state, reason, expected;
  bool dry_run{false};
};

std::string absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

// scheduled_directory() asks the control plane where its backups are.
std::string scheduled_directory(const context& c) {
  const json answer = c.connect().get("/v1/backups");
  const json to = answer.value("to", json{});
  if (!to.is_string())
    throw failure(
        "no directory is named, and node.yaml schedules no backups (controlplane.backup.to): "
        "--from DIR names one");
  return to.get<std::string>();
}

std::string directory_of(const context& c, const backup_options& o) {
  return o.from.empty() ? scheduled_directory(c) : absolute(o.from);
}

template <class T>
T need(backup::result<T> r) {
  if (!r) throw failure(r.error());
  return std::move(*r);
}

const std::vector<column>& backup_columns() {
  static const std::vector<column> columns{field("NAME", "name"),
                                           field("CREATED", "created"),
                                           number("FIRST", "first"),
                                           number("LAST", "last"),
                                           number("REVISIONS", "revisions"),
                                           number("BYTES", "bytes"),
                                           field("BUILDS ON", "parent"),
                                           field("NODE", "node")};
  return columns;
}

void make_backup(const context& c, const backup_options& o) {
  query q{{"kind", o.kind}, {"to", absolute(o.to)}};
  if (!o.copy_to.empty()) {
    q.emplace_back("copy_to", absolute(o.copy_to));
    q.emplace_back("copy", o.copy);
  }
  const json answer = c.connect().post("/v1/backups", json::object(), q);
  if (c.output != format::table) return print_object(std::cout, c.output, answer);
  const json b = answer.value("backup", json::object());
  if (!answer.value("created", false)) {
    std::cout << "nothing new since " << cell_of(b.value("name", json{}))
              << ": no backup was made\n";
  } else {
    std::cout << fmt::format("{}: {} revisions up to {}, {} bytes\n", b.value("name", ""),
                             cell_of(b.value("revisions", json{})),
                             cell_of(b.value("last", json{})), cell_of(b.value("bytes", json{})));
  }
  const std::string copy = answer.value("copy", "none");
  if (copy == "done") std::cout << "copied to " << absolute(o.copy_to) << "\n";
  if (copy == "queued") std::cout << "will be copied to " << absolute(o.copy_to) << "\n";
}

void list_backups(const context& c, const backup_options& o) {
  const auto d = need(backup::directory::read(directory_of(c, o)));
  json list = json::array();
  for (const auto& e : d.entries()) list.push_back(backup::to_json(e.about));
  if (c.output == format::table)
    print_table(std::cout, backup_columns(), list, "no backups");
  else
    print_object(std::cout, c.output,
                 json{{"directory", d.path()}, {"backups", list}, {"problems", d.problems()}});
  if (c.output == format::table)
    for (const std::string& p : d.problems()) std::cerr << "warning: " << p << "\n";
}

void verify_backups(const context& c, const backup_options& o) {
  const std::string where = directory_of(c, o);
  const auto found = need(backup::verify(where));
  if (!found.problems.empty()) throw failure(found.problems);
  if (found.backups == 0) throw failure(where + ": there are no backups in it");
  if (c.output != format::table)
    return print_object(std::cout, c.output,
                        json{{"ok", true},
                             {"directory", where},
                             {"backups", found.backups},
                             {"revisions", found.revisions}});
  std::cout << fmt::format("{}: ok: {} backups, {} revisions, every one read and checked\n", where,
                           found.backups, found.revisions);
}

backup::target target_of(const backup_options& o) {
  backup::target t;
  if (!o.revision.empty()) t.revision = std::stoull(o.revision);
  if (!o.at.empty()) t.at_ms = backup::parse_time(o.at);
  return t;
}

json state_json(const backup::found_state& s) {
  return {{"revision", s.revision},
          {"time", backup::format_time(s.time_ms)},
          {"node", s.node},
          {"backup", s.backup},
          {"backups_read", s.backups_read}};
}

void print_notes(const backup::found_state& s) {
  for (const std::string& n : s.notes) std::cerr << "warning: " << n << "\n";
}

std::string author() {
  const passwd* p = ::getpwuid(::getuid());
  return p != nullptr && p->pw_name != nullptr ? p->pw_name : std::to_string(::getuid());
}

// restore_file() makes a state file; no control plane may be using it.
void restore_file(const context& c, const backup_options& o, const backup::directory& d) {
  const auto done = need(backup::rebuild(d, target_of(o), absolute(o.state), author()));
  print_notes(done.state);
  if (c.output != format::table)
    return print_object(std::cout, c.output,
                        json{{"restored", state_json(done.state)},
                             {"state", absolute(o.state)},
                             {"revisions", done.revisions},
                             {"kept", done.kept.empty() ? json() : json(done.kept)}});
  std::cout << fmt::format("{}: {} revisions, with the state of revision {} ({}) of node {}\n",
                           absolute(o.state), done.revisions, done.state.revision,
                           backup::format_time(done.state.time_ms), done.state.node);
  if (!done.kept.empty()) std::cout << "what was there before: " << done.kept << "\n";
}

void restore(const context& c, const backup_options& o) {
  if (!o.state.empty() && (o.dry_run || !o.expected.empty() || !o.reason.empty()))
    throw CLI::ValidationError("--state",
                               "is without a daemon: not with --dry-run, --reason or "
                               "--if-revision");
  const auto d = need(backup::directory::read(directory_of(c, o)));
  if (!o.state.empty()) return restore_file(c, o, d);
  const auto found = need(backup::find_state(d, target_of(o)));
  print_notes(found);
  client api = c.connect();
  api.set_expected(o.expected);
  api.set_reason(!o.reason.empty() ? o.reason
                                   : fmt::format("restored revision {} of node {} from {}",
                                                 found.revision, found.node, found.backup));
  query q{{"file", fmt::format("{} revision {}", found.backup, found.revision)}};
  if (o.dry_run) q.emplace_back("dry_run", "1");
  json answer = api.put("/v1/config", q, found.text);
  if (c.output == format::table) {
    std::cout << fmt::format("revision {} of node {}, of {}, from {}\n", found.revision, found.node,
                             backup::format_time(found.time_ms), found.backup);
  } else {
    answer["restored"] = state_json(found);
  }
  print_changes(c, answer, o.dry_run);
}

CLI::Validator time_text() {
  return CLI::Validator{[](const std::string& text) {
                          return backup::parse_time(text)
                                     ? std::string{}
                                     : "\"" + text +
                                           "\" is not a time; wanted is one such as "
                                           "2026-11-21T23:45:00Z or 2026-11-21T23:45:00+01:00";
                        },
                        ""};
}

}  // namespace

void register_backup(CLI::App& app, context& c) {
  static backup_options o;
  const auto add_from = [](CLI::App& sub) {
    sub.add_option("DIR,--from", o.from,
                   "the backups; if not given, where the control plane's schedule puts them")
        ->check(not_empty())
        ->type_name("DIR");
  };

  CLI::App* backup = app.add_subcommand(
      "backup",
      "Back up the desired state with its history, and look at backups.\n"
      "Example: sluice backup create --kind incremental --to /var/backups/sluice");
  backup->require_subcommand(1);

  CLI::App* create = backup->add_subcommand(
      "create",
      "Make a backup. full: all revisions; incremental: those since the last backup;\n"
      "differential: those since the last full one. Nothing is written where nothing is new.\n"
      "Example: sluice backup create --kind full --to /var/backups/sluice");
  create->add_option("--kind", o.kind, "full, incremental or differential")
      ->required()
      ->check(CLI::IsMember({"full", "incremental", "differential"}).description(""))
      ->type_name("KIND");
  create->add_option("--to", o.to, "a directory on the node, for the backups of this node alone")
      ->required()
      ->check(not_empty())
      ->type_name("DIR");
  CLI::Option* copy_to =
      create->add_option("--copy-to", o.copy_to, "also copy what is not there yet to this one")
          ->check(not_empty())
          ->type_name("DIR");
  create
      ->add_option("--copy", o.copy,
                   "sync: the answer comes when both are written; async: copied afterwards")
      ->capture_default_str()
      ->needs(copy_to)
      ->check(CLI::IsMember({"sync", "async"}).description(""))
      ->type_name("MODE");
  add_output(*create, c);
  create->callback([&c] { make_backup(c, o); });

  CLI::App* list = backup->add_subcommand("list",
                                          "The backups in a directory, the oldest first.\n"
                                          "Example: sluice backup list --from /var/backups/sluice");
  add_from(*list);
  add_output(*list, c);
  list->callback([&c] { list_backups(c, o); });

  CLI::App* verify = backup->add_subcommand(
      "verify",
      "Read every byte of every backup and hold it to its checksums and to the backup that it\n"
      "builds on. Exit code 1 if anything is wrong; without a daemon, too.\n"
      "Example: sluice backup verify --from /var/backups/sluice");
  add_from(*verify);
  add_output(*verify, c);
  verify->callback([&c] { verify_backups(c, o); });

  CLI::App* back = app.add_subcommand(
      "restore",
      "Make a state out of backups, of this node or another one, the desired state: the newest,\n"
      "a revision, or what was at a time. It becomes a new revision; nothing is lost. With\n"
      "--state and without a daemon: make a state file with the whole history; what is there is\n"
      "kept under another name.\n"
      "Example: sluice restore --from /var/backups/sluice --at 2026-11-21T23:45:00Z --dry-run");
  add_from(*back);
  CLI::Option* revision = back->add_option("--revision", o.revision, "the state of this revision")
                              ->check(revision_number())
                              ->type_name("N");
  back->add_option("--at", o.at, "the state at this time, such as 2026-11-21T23:45:00Z")
      ->check(time_text())
      ->excludes(revision)
      ->type_name("TIME");
  back->add_flag("--dry-run", o.dry_run, "only say what would change");
  back->add_option("--state", o.state, "make this state file; its control plane must not run")
      ->check(not_empty())
      ->type_name("FILE");
  back->add_option("--reason", o.reason, "kept with the revision")->type_name("TEXT");
  back->add_option("--if-revision", o.expected, "refuse if this is no longer the newest revision")
      ->check(revision_number())
      ->type_name("N");
  add_output(*back, c);
  back->callback([&c] { restore(c, o); });
}

}  // namespace sluice::cli
