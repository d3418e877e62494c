// SPDX-License-Identifier: Apache-2.0
// doctor: what of this host stands in the way. Needs no daemon and changes nothing.
#include "tools/doctor/doctor.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>

#include "controlplane/config/config.hpp"
#include "dataplane/abi/node_file.hpp"
#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

struct doctor_options {
  std::string node, services, root{"/"};
};

[[noreturn]] void refuse_file(const std::vector<config_error>& errors) {
  std::vector<std::string> lines;
  for (const config_error& e : errors) lines.push_back(e.to_string());
  throw failure(lines);
}

json findings_json(const std::vector<doctor::finding>& findings) {
  json out = json::array();
  for (const doctor::finding& f : findings)
    out.push_back({{"level", doctor::to_string(f.level)},
                   {"check", f.check},
                   {"subject", f.subject.empty() ? json() : json(f.subject)},
                   {"seen", f.seen},
                   {"right", f.right.empty() ? json() : json(f.right)}});
  return out;
}

void run_doctor(context& c, const doctor_options& o) {
  const std::string usual = (std::filesystem::path{o.root} / "etc/sluice/node.yaml").string();
  const bool there = std::filesystem::exists(usual);
  const std::string file = !o.node.empty() ? o.node : there ? usual : "";
  std::optional<node_config> node;
  if (!file.empty()) {
    auto read = load_node_file(file);
    if (!read) refuse_file(read.error());
    node = std::move(*read);
  }
  std::optional<model::desired_state> state;
  if (!o.services.empty()) {
    const auto text = read_text_file(o.services);
    if (!text) throw failure(text.error().to_string());
    auto parsed = config::parse_services(*text, o.services,
                                         node ? config::context::of(*node) : config::context{});
    if (!parsed) refuse_file(parsed.error());
    state = std::move(*parsed);
  }
  auto findings = doctor::examine({o.root, node ? &*node : nullptr, state ? &*state : nullptr});
  if (!node)
    findings.push_back({doctor::level::warn, "node", "", "there is no " + usual,
                        "--node FILE: ports and workers are not looked at without it"});
  const auto count = [&](doctor::level l) {
    return std::count_if(findings.begin(), findings.end(),
                         [l](const doctor::finding& f) { return f.level == l; });
  };
  const auto failed = count(doctor::level::fail);
  if (failed != 0) c.exit_code = 1;
  const json list = findings_json(findings);
  if (c.output != format::table)
    return print_object(
        std::cout, c.output,
        json{
            {"ok", failed == 0}, {"node", file.empty() ? json() : json(file)}, {"findings", list}});
  for (const doctor::finding& f : findings) {
    std::string line = std::string{doctor::to_string(f.level)};
    line.resize(6, ' ');
    line += f.check + (f.subject.empty() ? "" : " " + f.subject) + ": " + f.seen;
    std::cout << line << "\n";
    if (!f.right.empty()) std::cout << "      right: " << f.right << "\n";
  }
  std::cout << findings.size() << " looked at: " << count(doctor::level::warn) << " to look into, "
            << failed << " in the way\n";
}

}  // namespace

void register_doctor(CLI::App& app, context& c) {
  static doctor_options o;
  CLI::App* doctor = app.add_subcommand(
      "doctor",
      "What of this host stands in the way: hugepages, IOMMU, cores, NUMA nodes, drivers, queues,\n"
      "MTU, rp_filter, VIPs. Each line says what was seen, and what would be right. Exit code 1\n"
      "where something cannot work. Needs no daemon and changes nothing.\n"
      "Example: sluice doctor --node /etc/sluice/node.yaml --services services.yaml");
  doctor->add_option("--node", o.node, "node.yaml; if not given, /etc/sluice/node.yaml")
      ->type_name("FILE");
  doctor->add_option("--services", o.services, "services.yaml: look at its VIPs and tunnels, too")
      ->type_name("FILE");
  doctor->add_option("--root", o.root, "look at sys/ and proc/ below this directory")
      ->capture_default_str()
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory.description(""));
  add_output(*doctor, c);
  doctor->callback([&c] { run_doctor(c, o); });
}

}  // namespace sluice::cli
