// SPDX-License-Identifier: Apache-2.0
// apply, diff, check: services.yaml against the running state, another file, or itself.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <tuple>

#include <fmt/format.h>

#include "controlplane/access/tls.hpp"
#include "controlplane/config/config.hpp"
#include "controlplane/lists/prefix_file.hpp"
#include "controlplane/model/text.hpp"
#include "tools/cli/commands.hpp"
#include "tools/cli/room.hpp"

namespace sluice::cli {

namespace {

struct file_options {
  std::string file;
  std::string node;     // node.yaml to check against
  std::string against;  // diff: another services.yaml
  std::string reason;
  std::string expected;                // apply: refuse unless this is the newest revision
  std::vector<std::string> revisions;  // diff
  bool dry_run{false};
};

std::string shown_name(const std::string& file) {
  return file == "-" ? "standard input" : file;
}

std::string read_file(const std::string& file) {
  if (file == "-")
    return {std::istreambuf_iterator<char>{std::cin}, std::istreambuf_iterator<char>{}};
  auto text = read_text_file(file);
  if (!text) throw failure(text.error().to_string());
  return *text;
}

[[noreturn]] void refuse(const std::vector<config_error>& errors) {
  std::vector<std::string> lines;
  for (const config_error& e : errors) lines.push_back(e.to_string());
  throw failure(lines);
}

config::context node_context(const std::string& node_file) {
  if (node_file.empty()) return {};
  const auto node = load_node_file(node_file);
  if (!node) refuse(node.error());
  return config::context::of(*node);
}

model::desired_state read_state(const std::string& file, const std::string& node_file) {
  const std::string text = read_file(file);
  auto state = config::parse_services(text, shown_name(file), node_context(node_file));
  if (!state) refuse(state.error());
  return *state;
}

json changes_json(const std::vector<model::change>& changes) {
  json list = json::array();
  for (const model::change& ch : changes)
    list.push_back({{"kind", model::to_string(ch.kind)},
                    {"service", ch.service},
                    {"backend", ch.backend ? json(format_ip(*ch.backend)) : json(nullptr)},
                    {"text", ch.text}});
  return json{{"changes", list}};
}

// diff_revisions() compares two revisions, or one with what is now.
void diff_revisions(const context& c, const file_options& o) {
  query q{{"from", o.revisions.front()}};
  if (o.revisions.size() > 1) q.emplace_back("to", o.revisions[1]);
  print_diff(c, c.connect().get("/v1/diff", q));
}

void run_diff(const context& c, const file_options& o) {
  if (!o.revisions.empty()) {
    if (!o.file.empty() || !o.against.empty() || !o.node.empty())
      throw CLI::ValidationError("REVISION", "is given, so there is no file to compare");
    return diff_revisions(c, o);
  }
  if (o.file.empty()) throw CLI::RequiredError("-f FILE, or the number of a revision,");
  if (!o.against.empty()) {
    const auto before = read_state(o.against, o.node);
    print_diff(c, changes_json(model::diff(before, read_state(o.file, o.node))));
    return;
  }
  const std::string text = read_file(o.file);
  try {
    print_diff(
        c, c.connect().put("/v1/config", {{"dry_run", "1"}, {"file", shown_name(o.file)}}, text));
  } catch (const unreachable& e) {
    // Nobody asked for a daemon by name: a node where none runs yet has no services.
    if (c.endpoint_given) throw;
    const auto state = config::parse_services(text, shown_name(o.file), node_context(o.node));
    if (!state) refuse(state.error());
    std::cerr << e.what() << "\nno control plane to compare with: compared with no services\n";
    json answer = changes_json(model::diff({}, *state));
    answer["revision"] = nullptr;
    print_diff(c, answer);
  }
}

// is_node_file() tells by the top-level keys what a file is meant to be. What cannot be
// read, or is neither, counts as a services.yaml, whose parser says what is wrong.
bool is_node_file(const std::string& text) {
  const auto document = yaml::document::parse(text, {});
  if (!document) return false;
  yaml::error_list ignored{""};
  const auto root = document->root(ignored);
  if (root.kind() != yaml::node_kind::map) return false;
  bool node = false;
  if (const auto map = root.any_map()) {
    for (const auto& [key, value] : map->members()) {
      if (key == "services") return false;
      node =
          node || key == "node" || key == "cluster" || key == "dataplane" || key == "controlplane";
    }
  }
  return node;
}

void check_node_file(const context& c, const std::string& file, const std::string& text) {
  const auto node = parse_node_text(text, shown_name(file));
  if (!node) refuse(node.error());
  if (const auto& listen = node->controlplane.api_listen)
    if (const auto read = access::secure(*listen, shown_name(file)); !read) refuse(read.error());
  if (c.output != format::table) {
    print_object(std::cout, c.output,
                 json{{"ok", true},
                      {"kind", "node"},
                      {"node", node->name},
                      {"ports", node->dataplane.ports.size()}});
    return;
  }
  std::cout << fmt::format("{}: ok: node {}, ports: {}{}\n", shown_name(file), node->name,
                           node->dataplane.ports.size(),
                           node->dataplane.ports.empty() ? " (a data plane needs one)" : "");
}

// check_lists() reads the files of allow and deny lists that are on this host. Those that are
// not are for the node to find: a warning.
void check_lists(const model::desired_state& state, std::vector<std::string>& warnings) {
  std::vector<config_error> errors;
  std::set<std::string> seen;
  for (const auto& s : state.services) {
    for (const auto* set : {&s.allow, &s.deny}) {
      if (set->file.empty() || !seen.insert(set->file).second) continue;
      if (!std::filesystem::exists(set->file)) {
        warnings.push_back("services[" + s.name + "]: " + set->file + " is not on this host");
        continue;
      }
      const auto list = lists::load(*set);
      if (!list) errors.insert(errors.end(), list.error().begin(), list.error().end());
    }
  }
  if (!errors.empty()) refuse(errors);
}

json rooms_json(const room_report& report) {
  json out = json::array();
  for (const backend_room& r : report.rooms)
    out.push_back({{"service", r.service},
                   {"backend", format_ip(r.backend)},
                   {"forward", r.forward},
                   {"mtu", r.mtu},
                   {"room", r.room}});
  return out;
}

// print_rooms() has one line for the backends of a service that have the same room.
void print_rooms(const room_report& report) {
  std::map<std::tuple<std::string, std::string, unsigned>, std::size_t> counts;
  for (const backend_room& r : report.rooms) ++counts[{r.service, r.forward, r.room}];
  json rows = json::array();
  for (const auto& [key, count] : counts)
    rows.push_back({{"service", std::get<0>(key)},
                    {"forward", std::get<1>(key)},
                    {"backends", count},
                    {"mtu", fmt::format("{} ({})", report.mtu, report.source)},
                    {"room", std::get<2>(key)}});
  if (rows.empty()) return;
  std::cout << "\n";
  print_table(std::cout,
              {field("SERVICE", "service"), field("FORWARD", "forward"),
               number("BACKENDS", "backends"), field("MTU", "mtu"), number("ROOM", "room")},
              rows, "");
}

void run_check(const context& c, const file_options& o) {
  const std::string text = read_file(o.file);
  if (is_node_file(text)) return check_node_file(c, o.file, text);
  std::optional<node_config> node;
  if (!o.node.empty()) {
    auto read = load_node_file(o.node);
    if (!read) refuse(read.error());
    node = std::move(*read);
  }
  const auto parsed = config::parse_services(text, shown_name(o.file),
                                             node ? config::context::of(*node) : config::context{});
  if (!parsed) refuse(parsed.error());
  const model::desired_state& state = *parsed;
  room_report report = look_at_room(state, node ? &*node : nullptr);
  check_lists(state, report.warnings);
  std::size_t backends = 0;
  for (const auto& s : state.services) backends += s.backends.size();
  if (c.output != format::table) {
    print_object(std::cout, c.output,
                 json{{"ok", true},
                      {"kind", "services"},
                      {"services", state.services.size()},
                      {"backends", backends},
                      {"room", rooms_json(report)},
                      {"warnings", report.warnings}});
    return;
  }
  std::cout << fmt::format("{}: ok: {} services, {} backends\n", shown_name(o.file),
                           state.services.size(), backends);
  print_rooms(report);
  std::cout.flush();
  for (const std::string& w : report.warnings)
    std::cerr << shown_name(o.file) << ": warning: " << w << "\n";
}

}  // namespace

void print_diff(const context& c, const json& answer) {
  if (c.output != format::table) return print_object(std::cout, c.output, answer);
  for (const json& ch : answer.value("changes", json::array())) {
    const std::string kind = ch.value("kind", "");
    std::cout << (kind == "added"     ? "+ "
                  : kind == "removed" ? "- "
                                      : "~ ")
              << ch.value("text", "") << "\n";
  }
  if (answer.value("changes", json::array()).empty()) std::cout << "no difference\n";
}

void print_changes(const context& c, const json& answer, bool dry_run) {
  if (c.output != format::table) return print_object(std::cout, c.output, answer);
  const json changes = answer.value("changes", json::array());
  for (const json& ch : changes) std::cout << ch.value("text", "") << "\n";
  if (dry_run) {
    std::cout << (changes.empty() ? "nothing would change\n" : "dry run: nothing was changed\n");
  } else if (changes.empty()) {
    std::cout << "nothing to change: it is so already in revision "
              << cell_of(answer.value("revision", json{})) << "\n";
  } else {
    std::cout << "revision " << cell_of(answer.value("revision", json{})) << "\n";
  }
}

void register_files(CLI::App& app, context& c) {
  static file_options o;

  CLI::App* apply = app.add_subcommand(
      "apply",
      "Make a services.yaml the desired state. What did not change is not touched.\n"
      "Example: sluice apply -f services.yaml --dry-run");
  apply->add_option("-f,--file", o.file, "services.yaml, or - for standard input")
      ->required()
      ->type_name("FILE");
  apply->add_flag("--dry-run", o.dry_run, "only say what would change");
  apply->add_option("--reason", o.reason, "kept with the revision")->type_name("TEXT");
  apply->add_option("--if-revision", o.expected, "refuse if this is no longer the newest revision")
      ->type_name("N")
      ->check(revision_number());
  add_output(*apply, c);
  apply->callback([&c] {
    const std::string text = read_file(o.file);
    client api = c.connect();
    api.set_reason(o.reason);
    api.set_expected(o.expected);
    query q{{"file", shown_name(o.file)}};
    if (o.dry_run) q.emplace_back("dry_run", "1");
    print_changes(c, api.put("/v1/config", q, text), o.dry_run);
  });

  CLI::App* diff = app.add_subcommand(
      "diff",
      "What `apply` of a file would change in the running state. With --against: the\n"
      "difference of two files, without a daemon. Where no daemon runs and no socket is\n"
      "named, everything is new. With REVISION: what has changed since, or up to a second one.\n"
      "Example: sluice diff -f new.yaml --against services.yaml");
  diff->add_option("REVISION", o.revisions, "one or two revisions; 0: before the first")
      ->expected(0, 2)
      ->check(revision_number());
  diff->add_option("-f,--file", o.file, "services.yaml, or - for standard input")
      ->type_name("FILE");
  diff->add_option("--against", o.against, "compare with this file, not with the running state")
      ->type_name("FILE");
  diff->add_option("--node", o.node, "without a daemon: a node.yaml, what this node offers")
      ->type_name("FILE");
  add_output(*diff, c);
  diff->callback([&c] { run_diff(c, o); });

  CLI::App* check = app.add_subcommand(
      "check",
      "Check a services.yaml, or a node.yaml, without a daemon: also the files of its lists, and\n"
      "how large a packet may be on its way to the backends.\n"
      "Example: sluice check -f services.yaml --node /etc/sluice/node.yaml");
  check->add_option("-f,--file", o.file, "services.yaml or node.yaml, or - for standard input")
      ->required()
      ->type_name("FILE");
  check->add_option("--node", o.node, "a node.yaml: check also against what the node offers")
      ->type_name("FILE");
  add_output(*check, c);
  check->callback([&c] { run_check(c, o); });
}

}  // namespace sluice::cli
