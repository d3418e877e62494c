// SPDX-License-Identifier: Apache-2.0
// sluice-controlplane: arguments, start, signals, exit codes. 0: ok; 1: refused or
// failed; 2: wrong usage. The data plane goes on with the last tables when this ends.
#include <fcntl.h>
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "controlplane/access/tls.hpp"
#include "controlplane/api/router.hpp"
#include "controlplane/api/server.hpp"
#include "controlplane/daemon/reloader.hpp"
#include "controlplane/daemon/supervision.hpp"
#include "controlplane/metrics/exporter.hpp"
#include "controlplane/reconcile/backup_keeper.hpp"
#include "controlplane/reconcile/cluster_keeper.hpp"
#include "controlplane/reconcile/controller.hpp"
#include "dataplane/abi/node_file.hpp"

namespace {

using namespace sluice;

constexpr const char* usage_text = R"(usage: sluice-controlplane --node FILE [--check]

Keeps the desired state, checks the health of backends, builds the tables that
sluice-dataplane forwards by, and answers the HTTP API (docs/api.md).
Runs in the foreground until SIGTERM or SIGINT; a second one ends it at once. SIGHUP has it
read node.yaml again: the log level, and what the API over TCP takes for certificate and tokens.

  --node FILE         node.yaml of this host (docs/configuration.md)
  --check             only check the file; exit 1 if it is wrong
  --log-level LEVEL   debug, info, warning or error, whatever node.yaml says (node.log-level)
  --verbose           --log-level debug
  --version           print the version
  --help              print this
)";

struct options {
  std::string node;
  bool check{false};
  std::optional<log_level> level;  // nothing: as node.yaml says
};

[[noreturn]] void wrong_usage(const char* what) {
  if (what != nullptr) std::fprintf(stderr, "sluice-controlplane: %s\n", what);
  std::fputs(usage_text, stderr);
  std::exit(2);
}

options read_options(int argc, char** argv) {
  enum : int { node = 1, check, level, verbose, version, help };
  const option known[] = {{"node", required_argument, nullptr, node},
                          {"check", no_argument, nullptr, check},
                          {"log-level", required_argument, nullptr, level},
                          {"verbose", no_argument, nullptr, verbose},
                          {"version", no_argument, nullptr, version},
                          {"help", no_argument, nullptr, help},
                          {nullptr, 0, nullptr, 0}};
  options out;
  for (int c = 0; (c = getopt_long(argc, argv, "h", known, nullptr)) != -1;) switch (c) {
      case node:
        out.node = optarg;
        break;
      case check:
        out.check = true;
        break;
      case level:
        out.level = parse_log_level(optarg);
        if (!out.level) wrong_usage("--log-level is debug, info, warning or error");
        break;
      case verbose:
        out.level = log_level::debug;
        break;
      case version:
        std::puts("sluice-controlplane " SLUICE_VERSION);
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

int fail(const std::string& what) {
  spdlog::error("{}", what);
  return 1;
}

// make_directory() makes the directory of a file; those that are there stay as they are.
bool make_directory(const std::filesystem::path& directory, std::string& error) {
  std::error_code code;
  std::filesystem::create_directories(directory, code);
  if (code) error = directory.string() + ": cannot make the directory: " + code.message();
  return !code;
}

// take_lock() returns a descriptor that holds the runtime directory for this process.
int take_lock(const std::string& path, std::string& error) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    error = path + ": cannot open: " + std::generic_category().message(errno);
    return -1;
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    error = errno == EWOULDBLOCK
                ? path + ": another control plane runs in this runtime directory"
                : path + ": cannot lock: " + std::generic_category().message(errno);
    ::close(fd);
    return -1;
  }
  return fd;
}

// signals_to_descriptor() blocks the stop signals in every thread to come.
int signals_to_descriptor() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGHUP);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int serve(const node_config& node, std::optional<log_level> level) {
  std::string error;
  const auto& settings = node.controlplane;
  for (const std::filesystem::path& directory :
       {std::filesystem::path{node.runtime_dir},
        std::filesystem::path{settings.state}.parent_path(),
        std::filesystem::path{settings.api_socket}.parent_path()})
    if (!directory.empty() && !make_directory(directory, error)) return fail(error);
  std::optional<access::secured> secured;
  if (settings.api_listen) {
    auto read = access::secure(*settings.api_listen, node.file);
    if (!read) return fail(to_string(read.error()));
    secured = std::move(*read);
  }
  std::optional<model::service> common;  // of what comes from Kubernetes
  if (settings.kubernetes) {
    auto read = discover::common_service(*settings.kubernetes);
    if (!read) return fail(to_string(read.error()));
    common = std::move(*read);
  }
  const int lock = take_lock(node.controlplane_lock_path(), error);
  if (lock < 0) return fail(error);
  const int signals = signals_to_descriptor();
  if (signals < 0) return fail(std::string{"signalfd: "} + std::generic_category().message(errno));

  auto file = store::state_store::open(settings.state, settings.history.revisions);
  if (!file) return fail(file.error());
  const auto keeper = std::make_shared<reconcile::state_keeper>(std::move(*file));

  event_loop loop;
  reconcile::controller controller{loop, node, keeper};
  if (auto started = controller.start(); !started) return fail(started.error());

  std::unique_ptr<reconcile::cluster_keeper> cluster;
  if (common) {
    cluster = std::make_unique<reconcile::cluster_keeper>(loop, controller, *settings.kubernetes,
                                                          std::move(*common));
    controller.accompany(
        {[&cluster] { return cluster->problems(); }, [&cluster] { return cluster->status(); }});
  } else if (auto removed = reconcile::remove_cluster_services(controller); !removed) {
    spdlog::error("what came from Kubernetes cannot be removed: {}", removed.error());
  }

  reconcile::backup_keeper backups{keeper, node};
  api::router router{controller, backups};
  auto server = api::server::listen(settings.api_socket, settings.api_mode,
                                    [&router](const api::request& r) { return router.handle(r); });
  if (!server) return fail(server.error());
  std::unique_ptr<api::server> remote;
  if (secured) {
    auto made =
        api::server::listen_tls(settings.api_listen->address, std::move(*secured),
                                [&router](const api::request& r) { return router.handle(r); });
    if (!made) return fail(made.error());
    remote = std::move(*made);
    const std::string at = format_ip_port(settings.api_listen->address);
    spdlog::info("API on https://{0}/v1, web page on https://{0}/ui/", at);
  }
  std::unique_ptr<metrics::exporter> exporter;
  if (settings.metrics_listen) {
    auto made = metrics::exporter::listen(*settings.metrics_listen, controller);
    if (!made) return fail(made.error());
    exporter = std::move(*made);
    spdlog::info("metrics on http://{}/metrics", format_ip_port(*settings.metrics_listen));
  }

  // What is revoked is revoked for the next request; events that are followed go on.
  daemon::reloader reloader{
      node, level, [&](const node_config& next) -> tl::expected<void, std::vector<config_error>> {
        const auto& listen = next.controlplane.api_listen;
        if (!remote || !listen) return {};
        auto fresh = access::secure(*listen, next.file);
        if (!fresh) return tl::unexpected{std::move(fresh.error())};
        remote->renew(std::move(*fresh));
        return {};
      }};
  daemon::supervision supervision{loop, [&controller] { return controller.summary(); }};
  std::thread stopper;
  const auto added = loop.add_fd(signals, EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo info{};
    if (::read(signals, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
    if (info.ssi_signo == SIGHUP) return reloader.request();
    if (stopper.joinable()) std::_Exit(1);  // asked twice
    spdlog::info("signal {}: stopping; the data plane goes on with the tables it has",
                 info.ssi_signo);
    daemon::tell_stopping();
    // Calls that are being answered need the loop until they are done.
    stopper = std::thread{[&] {
      exporter.reset();
      if (remote) remote->stop();
      (*server)->stop();
      if (cluster) cluster->stop();
      loop.stop();
    }};
  });
  if (added) return fail("signals cannot be watched: " + added.message());

  spdlog::info("ready: API on {}", settings.api_socket);
  if (cluster) cluster->start();
  supervision.ready();
  loop.run();
  stopper.join();
  loop.remove_fd(signals);
  ::close(signals);
  ::close(lock);
  spdlog::info("stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const options o = read_options(argc, argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("sluice-controlplane"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  spdlog::flush_on(spdlog::level::info);
  const auto node = load_node_file(o.node);
  if (!node) {
    std::fprintf(stderr, "%s\n", to_string(node.error()).c_str());
    return 1;
  }
  daemon::set_log_level(o.level.value_or(node->log));
  if (o.check) {
    if (const auto& listen = node->controlplane.api_listen) {
      if (const auto read = access::secure(*listen, o.node); !read) {
        std::fprintf(stderr, "%s\n", to_string(read.error()).c_str());
        return 1;
      }
    }
    if (const auto& cluster = node->controlplane.kubernetes) {
      if (const auto read = discover::common_service(*cluster); !read) {
        std::fprintf(stderr, "%s\n", to_string(read.error()).c_str());
        return 1;
      }
    }
    std::printf("%s: fine\n", o.node.c_str());
    return 0;
  }
  try {
    return serve(*node, o.level);
  } catch (const std::exception& e) {
    return fail(e.what());
  }
}
