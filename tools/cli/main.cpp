// SPDX-License-Identifier: Apache-2.0
// sluice: the operator's command. Exit code 0: ok; 1: refused or failed; 2: wrong usage.
#include <csignal>
#include <cstdlib>
#include <iostream>

#include "tools/cli/commands.hpp"

namespace {

int run(int argc, char** argv) {
  using namespace sluice::cli;
  context c;
  if (const char* socket = std::getenv("SLUICE_SOCKET"); socket != nullptr && *socket != '\0') {
    c.api.socket = socket;
    c.endpoint_given = true;
  }
  const auto from_environment = [](const char* name, std::string& to) {
    if (const char* text = std::getenv(name); text != nullptr) to = text;
  };
  from_environment("SLUICE_URL", c.api.url);
  from_environment("SLUICE_TOKEN_FILE", c.api.token_file);
  from_environment("SLUICE_CA", c.api.ca);
  c.endpoint_given = c.endpoint_given || !c.api.url.empty();

  CLI::App app{
      "Sluice, a layer-4 load balancer: this command talks to sluice-controlplane.\n"
      "Example: sluice apply -f services.yaml && sluice get backends",
      "sluice"};
  app.set_version_flag("--version", std::string{"sluice "} + SLUICE_VERSION);
  app.add_option_function<std::string>(
         "--socket",
         [&c](const std::string& s) {
           c.api.socket = s;
           c.api.url.clear();
           c.endpoint_given = true;
         },
         "the control plane's API socket (or $SLUICE_SOCKET)")
      ->default_str(c.api.socket)
      ->type_name("PATH");
  app.add_option_function<std::string>(
         "--url",
         [&c](const std::string& s) {
           c.api.url = s;
           c.endpoint_given = true;
         },
         "the API over TLS, in place of the socket (or $SLUICE_URL)")
      ->type_name("https://HOST:PORT");
  app.add_option("--token-file", c.api.token_file,
                 "holds the token for --url (or $SLUICE_TOKEN_FILE)")
      ->type_name("FILE");
  app.add_option(
         "--ca", c.api.ca,
         "certificates that vouch for the server of --url (or $SLUICE_CA); else the system's")
      ->type_name("FILE");
  app.add_option("--timeout", c.timeout_s, "seconds to wait for an answer, 1 to 3600")
      ->capture_default_str()
      ->type_name("SECONDS")
      ->check(CLI::Range(1, 3600).description(""));
  add_output(app, c);
  app.require_subcommand(1);
  app.footer(
      "--socket, --url and --timeout (see sluice --help) and -o may stand before or after the "
      "command.");
  app.fallthrough();
  app.get_formatter()->column_width(34);

  register_show(app, c);
  register_files(app, c);
  register_import(app, c);
  register_history(app, c);
  register_events(app, c);
  register_backup(app, c);
  register_objects(app, c);
  register_node(app, c);
  register_heartbeat(app, c);
  register_counters(app, c);
  register_top(app, c);
  register_connections(app, c);
  register_trace(app, c);
  register_capture(app, c);
  register_doctor(app, c);
  register_describe(app, c);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::RequiredError& e) {
    // "A subcommand is required" is no answer to one that does not exist.
    const CLI::App* last = &app;
    while (!last->get_subcommands().empty()) last = last->get_subcommands().back();
    const auto left = app.remaining(true);
    const bool wants_command = last->get_require_subcommand_min() > 0;
    if (wants_command && !left.empty()) {
      std::cerr << last->get_name() << ": there is no command \"" << left.front() << "\"\n"
                << "Run with --help for more information.\n";
    } else {
      app.exit(e, std::cerr, std::cerr);
    }
    return 2;
  } catch (const CLI::ParseError& e) {
    app.exit(e, std::cerr, std::cerr);
    return 2;
  }
  return c.exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // `sluice get backends | head` ends quietly
  try {
    const int code = run(argc, argv);
    // `sluice get config > FILE` on a full disk has not written the config.
    if (std::cout.flush()) return code;
    std::cerr << "sluice: standard output cannot be written\n";
    return 1;
  } catch (const sluice::cli::failure& e) {
    std::cout.flush();
    for (const std::string& line : e.lines()) std::cerr << line << "\n";
  } catch (const std::exception& e) {
    std::cout.flush();
    std::cerr << "sluice: " << e.what() << "\n";
  }
  return 1;
}
