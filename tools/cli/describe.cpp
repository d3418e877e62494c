// SPDX-License-Identifier: Apache-2.0
// describe: the command line as JSON, from the very descriptions that --help prints. Man pages and
// completions are made of it when Sluice is built (tools/man/generate.py). Not for people.
#include <algorithm>
#include <iostream>

#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

json describe_option(const CLI::Option& o) {
  json names = json::array();
  for (const std::string& n : o.get_snames()) names.push_back("-" + n);
  for (const std::string& n : o.get_lnames()) names.push_back("--" + n);
  return {{"names", names},
          {"positional", o.get_positional() ? json(o.get_name(true, false)) : json()},
          {"takes_value", o.get_items_expected_max() > 0},
          {"type", o.get_type_name()},
          {"required", o.get_required()},
          {"default", o.get_default_str()},
          {"text", o.get_description()}};
}

json describe_command(const CLI::App& a) {
  json options = json::array();
  for (const CLI::Option* o : a.get_options())
    if (!o->get_group().empty()) options.push_back(describe_option(*o));
  json commands = json::array();
  for (const CLI::App* sub : a.get_subcommands([](const CLI::App*) { return true; }))
    if (!sub->get_group().empty()) commands.push_back(describe_command(*sub));
  return {{"name", a.get_name()},
          {"text", a.get_description()},
          {"options", options},
          {"commands", commands}};
}

}  // namespace

void register_describe(CLI::App& app, context&) {
  app.add_subcommand("describe", "The command line as JSON.\nExample: sluice describe")
      ->group("")
      ->callback([&app] { std::cout << describe_command(app).dump(1) << "\n"; });
}

}  // namespace sluice::cli
