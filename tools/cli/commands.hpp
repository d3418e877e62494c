// SPDX-License-Identifier: Apache-2.0
// The CLI's commands. Each register_ function adds its subcommands to the parser;
// a subcommand's callback does the work, throws failure, or sets `exit_code`.
#pragma once

#include <chrono>
#include <string>

#include <CLI/CLI.hpp>

#include "tools/cli/client.hpp"
#include "tools/cli/output.hpp"

namespace sluice::cli {

// context: the options that every command shares.
struct context {
  endpoint api{"/run/sluice/api.sock", {}, {}, {}};
  bool endpoint_given{false};  // by --socket, --url or the environment
  format output{format::table};
  int timeout_s{10};
  int exit_code{0};

  [[nodiscard]] client connect() const { return client{api, std::chrono::seconds{timeout_s}}; }
};

// add_output() gives a command that prints objects its -o.
void add_output(CLI::App& command, context& c);
// not_empty() refuses "", which would name another object in the API's paths.
CLI::Validator not_empty();

// revision_number() takes what names a revision.
CLI::Validator revision_number();

void register_show(CLI::App& app, context& c);         // status, get
void register_counters(CLI::App& app, context& c);     // stats, drops
void register_top(CLI::App& app, context& c);          // top
void register_connections(CLI::App& app, context& c);  // connections list, count
void register_files(CLI::App& app, context& c);        // apply, diff, check
void register_backup(CLI::App& app, context& c);       // backup ..., restore
void register_import(CLI::App& app, context& c);       // import ...
void register_history(CLI::App& app, context& c);      // history, rollback
void register_events(CLI::App& app, context& c);       // events
void register_node(CLI::App& app, context& c);         // node drain, undrain
void register_heartbeat(CLI::App& app, context& c);    // heartbeat
void register_objects(CLI::App& app, context& c);      // service ..., backend ...
void register_trace(CLI::App& app, context& c);        // explain, replay
void register_doctor(CLI::App& app, context& c);       // doctor
void register_describe(CLI::App& app, context& c);     // describe, which --help does not show
void register_capture(CLI::App& app, context& c);      // capture

// print_changes() says what a change did, or would do.
void print_changes(const context& c, const json& answer, bool dry_run);
// print_diff() lists changes, one on each line: + added, - removed, ~ changed.
void print_diff(const context& c, const json& answer);

}  // namespace sluice::cli
