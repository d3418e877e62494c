// SPDX-License-Identifier: Apache-2.0
// sluice-dataplane: arguments, signals, exit codes. 0: ok; 1: refused or failed; 2: wrong usage.
#include <getopt.h>
#include <pthread.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "dataplane/abi/node_file.hpp"
#include "dataplane/process/data_plane.hpp"
#include "dataplane/process/notify.hpp"
#include "dataplane/process/runtime_dir.hpp"

namespace {

constexpr const char* usage_text = R"(usage: sluice-dataplane --node FILE [--check | --remove]

Forwards packets on the ports of node.yaml, by the tables of sluice-controlplane.
Runs in the foreground until a signal ends it: SIGTERM (a restart or an upgrade) leaves what
the next start takes over, SIGINT and SIGHUP leave nothing. A second signal ends it at once.
SIGUSR1 has it read node.log-level again, and say what else has changed and needs a restart.

  --node FILE         node.yaml of this host (docs/configuration.md)
  --check             only say what would be done: ports, workers, memory; exit 1 if it cannot
  --remove            remove what a data plane that has ended has left for the next one
  --log-level LEVEL   debug, info, warning or error, whatever node.yaml says (node.log-level)
  --verbose           --log-level debug
  --version           print the version
  --help              print this
)";

struct options {
  std::string node;
  bool check{false};
  bool remove{false};
  std::optional<sluice::log_level> level;  // nothing: as node.yaml says
};

[[noreturn]] void wrong_usage(const char* what) {
  if (what != nullptr) std::fprintf(stderr, "sluice-dataplane: %s\n", what);
  std::fputs(usage_text, stderr);
  std::exit(2);
}

options read_options(int argc, char** argv) {
  enum : int { node = 1, check, remove, level, verbose, version, help };
  const option known[] = {
      {"node", required_argument, nullptr, node}, {"check", no_argument, nullptr, check},
      {"remove", no_argument, nullptr, remove},   {"log-level", required_argument, nullptr, level},
      {"verbose", no_argument, nullptr, verbose}, {"version", no_argument, nullptr, version},
      {"help", no_argument, nullptr, help},       {nullptr, 0, nullptr, 0}};
  options out;
  for (int c = 0; (c = getopt_long(argc, argv, "h", known, nullptr)) != -1;) switch (c) {
      case node:
        out.node = optarg;
        break;
      case check:
        out.check = true;
        break;
      case remove:
        out.remove = true;
        break;
      case level:
        out.level = sluice::parse_log_level(optarg);
        if (!out.level) wrong_usage("--log-level is debug, info, warning or error");
        break;
      case verbose:
        out.level = sluice::log_level::debug;
        break;
      case version:
        std::puts("sluice-dataplane " SLUICE_VERSION);
        std::exit(0);
      case help:
      case 'h':
        std::fputs(usage_text, stdout);
        std::exit(0);
      default:
        wrong_usage(nullptr);
    }
  if (optind < argc) wrong_usage("there are no arguments without --");
  if (out.node.empty()) wrong_usage("--node is missing");
  return out;
}

void set_log_level(const options& wish, const sluice::node_config& node) {
  const sluice::log_level level = wish.level.value_or(node.log);
  spdlog::set_level(spdlog::level::from_str(std::string{sluice::to_string(level)}));
}

// reload() takes over the log level; ports, workers and memory are a start's.
void reload(const options& wish, const sluice::node_config& running) {
  const auto next = sluice::load_node_file(wish.node);
  if (!next) {
    for (const auto& e : next.error()) spdlog::error("{}", e.to_string());
    spdlog::error("{}: not reloaded; all stays as it was", wish.node);
    return;
  }
  set_log_level(wish, *next);
  std::string later;
  for (const std::string_view key : sluice::changed_keys(running, *next))
    if (key != "node.log-level" &&
        (!key.starts_with("controlplane.") || key == "controlplane.limits"))
      later += (later.empty() ? "" : ", ") + std::string{key};
  if (!later.empty())
    spdlog::warn("{}: changed, and not taken over before a restart: {}", wish.node, later);
  spdlog::info("{}: reloaded", wish.node);
}

// stop_signals() are blocked before any thread is started: only sigtimedwait() in the
// housekeeping loop takes them.
sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  // A terminal that closes must not leave XDP programs behind; under nohup it does not end us.
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGUSR1);  // is handled there, too, and ends nothing
  return set;
}

int run(const options& wish) {
  const auto node = sluice::load_node_file(wish.node);
  if (!node) {
    std::fprintf(stderr, "%s\n", sluice::to_string(node.error()).c_str());
    return 1;
  }
  set_log_level(wish, *node);
  if (wish.check) {
    const auto plan = sluice::make_plan(*node, false);
    if (!plan) {
      std::fprintf(stderr, "sluice-dataplane: %s\n", plan.error().c_str());
      return 1;
    }
    for (const std::string& line : sluice::describe(*node, *plan)) std::puts(line.c_str());
    return 0;
  }
  const sigset_t stop = stop_signals();
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  const auto lock = sluice::process_lock::take(node->runtime_dir, node->dataplane_lock_path());
  if (!lock) {
    spdlog::error("{}", lock.error());
    return 1;
  }
  if (wish.remove) {
    const auto removed = sluice::remove_leftovers(*node);
    if (!removed) spdlog::error("{}", removed.error());
    return removed ? 0 : 1;
  }
  auto plan = sluice::make_plan(*node, true);
  if (!plan) {
    spdlog::error("{}", plan.error());
    return 1;
  }
  for (const std::string& line : sluice::describe(*node, *plan)) spdlog::debug("{}", line);
  for (const std::string& note : plan->places.notes) spdlog::warn("{}", note);
  auto plane = sluice::data_plane::start(*node, *plan);
  if (!plane) {
    spdlog::error("{}", plane.error());
    return 1;
  }
  const std::string summary = (*plane)->summary();
  spdlog::info("sluice-dataplane {} ready: {}", SLUICE_VERSION, summary);
  sluice::notify_ready(summary);
  int signal = (*plane)->run(stop);
  for (; signal == SIGUSR1; signal = (*plane)->run(stop)) {
    sluice::notify_reloading();
    reload(wish, *node);
    sluice::notify_ready(summary);
  }
  // A service manager's stop may be half of a restart; who presses Ctrl-C is done.
  const bool leave = signal == SIGTERM;
  (*plane)->leave_to_successor(leave);
  spdlog::info("signal {}: stopping{}", signal,
               leave ? ", the connection tables stay for the next start" : "");
  sluice::notify_stopping();
  // From now on a signal ends the process, should a driver hang.
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGHUP, SIG_DFL);
  std::signal(SIGUSR1, SIG_IGN);
  pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
  plane->reset();
  spdlog::info("stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const options wish = read_options(argc, argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("dataplane"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  try {
    return run(wish);
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    return 1;
  }
}
