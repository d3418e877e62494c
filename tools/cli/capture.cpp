// SPDX-License-Identifier: Apache-2.0
// capture: packets as they come in and as they leave, into a pcapng file. The data plane
// writes it; it is asked over its telemetry socket (docs/telemetry.md).
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <thread>

#include "dataplane/abi/address_text.hpp"
#include "tools/cli/commands.hpp"

namespace sluice::cli {

namespace {

volatile std::sig_atomic_t stop_capture = 0;

// telemetry: DPDK's socket; one answer per question.
class telemetry {
 public:
  explicit telemetry(std::string path) : path_{std::move(path)} {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    if (path_.size() >= sizeof to.sun_path) throw failure{path_ + ": the path is too long"};
    std::memcpy(to.sun_path, path_.c_str(), path_.size());
    fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    const timeval patience{10, 0};
    if (fd_ < 0 || ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
        ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      const int error = errno;
      if (fd_ >= 0) ::close(fd_);
      throw failure{path_ + ": " + std::strerror(error) +
                    "; does sluice-dataplane run, and are you root? Where its node.runtime-dir is "
                    "not the directory of the API socket, name it with --runtime-dir"};
    }
    receive();  // the greeting
  }
  telemetry(const telemetry&) = delete;
  telemetry& operator=(const telemetry&) = delete;
  ~telemetry() { ::close(fd_); }

  // capture() asks; returns what stands under the command's name.
  json capture(const std::string& what) {
    const std::string command = "/sluice/capture";
    const std::string question = what.empty() ? command : command + "," + what;
    // What DPDK reads at once.
    if (question.size() >= 1024) throw failure{"sluice capture: the filter is too long"};
    if (::send(fd_, question.data(), question.size(), MSG_NOSIGNAL) < 0) fail();
    const json answer = json::parse(receive(), nullptr, false);
    if (!answer.is_object() || !answer.contains(command) || !answer[command].is_object())
      throw failure{path_ + ": the data plane does not know " + command};
    return answer[command];
  }

 private:
  [[noreturn]] void fail() const { throw failure{path_ + ": " + std::strerror(errno)}; }
  std::string receive() const {
    std::string buffer(16384, '\0');
    const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (n < 0) fail();
    if (n == 0) throw failure{path_ + ": the data plane has gone"};
    buffer.resize(static_cast<std::size_t>(n));
    return buffer;
  }
  std::string path_;
  int fd_{-1};
};

// add_end() reads IP, IP/LENGTH, IP:PORT or [IPV6]:PORT.
void add_end(std::string& out, const std::string& key, const std::string& text) {
  if (text.empty()) return;
  if (const auto both = parse_ip_port(text)) {
    out += "," + key + "=" + format_ip(both->address) + "," + key +
           "-port=" + std::to_string(both->port);
  } else if (const auto prefix = parse_prefix(text)) {
    out += "," + key + "=" + format_prefix(*prefix);
  } else {
    throw CLI::ValidationError("--" + key, "'" + text + "' " + prefix.error() +
                                               "; expected IP, IP/LENGTH, IP:PORT or [IPV6]:PORT");
  }
}

struct wish {
  std::string service, protocol, source, destination, file, runtime_dir;
  std::uint64_t count{0}, seconds{0};
  std::uint32_t snap{0};
};

void run(context& c, const wish& w) {
  const std::string file = std::filesystem::absolute(w.file).lexically_normal();
  if (file.find(',') != file.npos)
    throw failure{"sluice capture: " + file + ": the path may not have a comma"};
  std::string what = "start," + file;
  if (!w.service.empty()) what += ",service=" + w.service;
  if (!w.protocol.empty())
    what += ",protocol=" + std::string{w.protocol == "tcp"    ? "6"
                                       : w.protocol == "udp"  ? "17"
                                       : w.protocol == "icmp" ? "1"
                                                              : "58"};
  add_end(what, "source", w.source);
  add_end(what, "destination", w.destination);
  if (w.count != 0) what += ",count=" + std::to_string(w.count);
  if (w.seconds != 0) what += ",seconds=" + std::to_string(w.seconds);
  if (w.snap != 0) what += ",snap=" + std::to_string(w.snap);

  const std::string directory = w.runtime_dir.empty()
                                    ? std::filesystem::path{c.api.socket}.parent_path().string()
                                    : w.runtime_dir;
  telemetry data_plane{directory + "/dpdk/eal/dpdk_telemetry.v2"};
  // Before it starts: a signal that comes early ends it as well.
  std::signal(SIGINT, [](int) { stop_capture = 1; });
  std::signal(SIGTERM, [](int) { stop_capture = 1; });
  json status = data_plane.capture(what);
  if (status.contains("error")) throw failure{"sluice capture: " + cell_of(status["error"])};
  while (status.value("running", 0) != 0) {
    if (stop_capture != 0) {
      status = data_plane.capture("stop");
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    status = data_plane.capture("");
  }
  if (c.output != format::table)
    print_object(std::cout, c.output, status);
  else
    std::cout << cell_of(status["written"]) << " packets written to " << file
              << (status.value("missed", 0) != 0
                      ? ", " + cell_of(status["missed"]) + " more did not fit the buffers"
                      : "")
              << "\n";
  if (status.contains("error")) throw failure{"sluice capture: " + cell_of(status["error"])};
}

}  // namespace

void register_capture(CLI::App& app, context& c) {
  CLI::App* capture = app.add_subcommand(
      "capture",
      "Writes packets to a pcapng file, each as it came in and as it leaves, until Ctrl-C.\n"
      "All that is given must fit; addresses and ports are those of the packet that came in.\n"
      "Example: sluice capture --service web --source 192.0.2.0/24 --seconds 10 -w web.pcapng");
  static wish w;
  capture->add_option("--service", w.service, "only what belongs to this service")
      ->type_name("NAME")
      ->check(not_empty());
  capture->add_option("--protocol", w.protocol, "tcp, udp, icmp or icmpv6")
      ->check(CLI::IsMember({"tcp", "udp", "icmp", "icmpv6"}));
  capture->add_option("--source", w.source, "IP, IP/LENGTH, IP:PORT or [IPV6]:PORT");
  capture->add_option("--destination", w.destination, "as --source");
  capture->add_option("-w,--write", w.file, "the file, which is replaced")
      ->required()
      ->type_name("FILE")
      ->check(not_empty());
  capture->add_option("--count", w.count, "end after so many packets, before and after counted")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 60).description(""));
  capture->add_option("--seconds", w.seconds, "end after so many seconds")
      ->check(CLI::Range(1, 1000000).description(""));
  capture->add_option("--snap", w.snap, "keep so many bytes of a packet (64 to 65535)")
      ->check(CLI::Range(64, 65535).description(""));
  capture
      ->add_option("--runtime-dir", w.runtime_dir,
                   "node.runtime-dir of the data plane (default: where the API socket is)")
      ->type_name("DIR");
  add_output(*capture, c);
  capture->callback([&c] { run(c, w); });
}

}  // namespace sluice::cli
