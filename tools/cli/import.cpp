// SPDX-License-Identifier: Apache-2.0
// import: what another balancer was configured by, as a services.yaml. No daemon.
#include <iostream>
#include <iterator>

#include "controlplane/model/text.hpp"
#include "dataplane/abi/node_file.hpp"
#include "tools/cli/commands.hpp"
#include "tools/import/import.hpp"

namespace sluice::cli {

namespace {

using import_function = importing::result (*)(std::string_view, std::string_view);

void run_import(const context& c, const std::string& file, import_function read) {
  const std::string name = file == "-" ? "standard input" : file;
  std::string text;
  if (file == "-") {
    text.assign(std::istreambuf_iterator<char>{std::cin}, std::istreambuf_iterator<char>{});
  } else {
    auto read_text = read_text_file(file);
    if (!read_text) throw failure(read_text.error().to_string());
    text = std::move(*read_text);
  }
  const auto imported = read(text, name);
  if (!imported) throw failure(imported.error().to_string());
  if (c.output == format::json_text) {
    print_object(std::cout, c.output, model::to_json(imported->state));
  } else {
    std::cout << "# Made of " << name << " by sluice import.\n" << model::to_yaml(imported->state);
  }
  std::cout.flush();
  for (const config_error& note : imported->notes) std::cerr << note.to_string() << "\n";
}

}  // namespace

void register_import(CLI::App& app, context& c) {
  static std::string file;
  CLI::App* import = app.add_subcommand(
      "import",
      "Make a services.yaml of what another balancer was configured by, without a daemon. What\n"
      "cannot be carried over is told on standard error, as FILE:LINE: key: what and why.\n"
      "Example: sluice import keepalived /etc/keepalived/keepalived.conf > services.yaml");
  import->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, import_function read) {
    CLI::App* sub = import->add_subcommand(name, help);
    sub->add_option("FILE", file, "the file, or - for standard input")->required();
    add_output(*sub, c);
    sub->callback([&c, read] { run_import(c, file, read); });
  };
  add("keepalived",
      "The virtual servers of a keepalived.conf, and of the files that it includes.\n"
      "Example: sluice import keepalived /etc/keepalived/keepalived.conf > services.yaml",
      [](std::string_view text, std::string_view name) {
        return importing::from_keepalived(text, name, importing::local_files);
      });
  add("ipvsadm",
      "The lines that `ipvsadm -Sn` prints.\n"
      "Example: sluice import ipvsadm rules.ipvs > services.yaml",
      importing::from_ipvsadm);
}

}  // namespace sluice::cli
