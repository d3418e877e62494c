// SPDX-License-Identifier: Apache-2.0
// flowgen: makes and measures connections for the end-to-end tests.
//   flowgen load --target 198.51.100.10:80 --connections 50 --rate 500 --duration 10
//   flowgen serve --listen 0.0.0.0:7 --name b1
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <stdexcept>

#include "tests/end_to_end/flowgen/client.hpp"
#include "tests/end_to_end/flowgen/server.hpp"
#include "tests/end_to_end/flowgen/sockets.hpp"

using namespace sluice::flowgen;

namespace {

void write_report(report& r, const std::string& file) {
  const std::string text = to_json(r) + "\n";
  std::FILE* out = file.empty() ? stdout : std::fopen(file.c_str(), "we");
  if (!out) throw std::runtime_error(file + ": cannot be written");
  std::fwrite(text.data(), 1, text.size(), out);
  std::fflush(out);
  if (out != stdout) std::fclose(out);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Makes and measures connections"};
  app.require_subcommand(1);

  client_options options;
  std::string target;
  std::string output;
  unsigned timeout_ms = 2000;
  unsigned download_timeout_s = 120;
  auto* load = app.add_subcommand("load", "send requests; a report in JSON at the end");
  load->add_option("--target", target, "ADDRESS:PORT, [IPV6]:PORT")->required();
  load->add_option("--mode", options.protocol, "http, tcp or udp")
      ->transform(CLI::CheckedTransformer(std::map<std::string, mode>{
          {"http", mode::http}, {"tcp", mode::tcp}, {"udp", mode::udp}}));
  load->add_option("--source", options.source, "local address");
  load->add_option("--local-port", options.local_port, "of the first connection; +1 for the next");
  load->add_option("--path", options.path, "what to GET");
  load->add_option("--connections", options.connections, "at the same time")
      ->check(CLI::Range(0, 50000));
  load->add_option("--rate", options.rate, "requests per second in all; 0: as fast as answered");
  load->add_option("--requests", options.requests, "in all; 0: no limit");
  load->add_option("--duration", options.duration, "seconds; 0: until SIGTERM");
  load->add_option("--requests-per-connection", options.requests_per_connection, "0: no limit");
  load->add_option("--timeout-ms", timeout_ms, "of a request");
  load->add_option("--downloads", options.downloads, "connections that GET --download-path once");
  load->add_option("--download-path", options.download_path);
  load->add_option("--download-timeout", download_timeout_s, "seconds");
  load->add_option("--log", options.log,
                   "a line per request: begin, end, outcome, local, backend, connection");
  load->add_option("--output", output, "the report's file (standard output)");

  std::vector<std::string> listen;
  std::string name;
  auto* server =
      app.add_subcommand("serve", "answer lines over TCP and UDP with NAME and the line");
  server->add_option("--listen", listen, "ADDRESS:PORT, several")->required();
  server->add_option("--name", name, "what to call itself")->required();

  CLI11_PARSE(app, argc, argv);
  try {
    catch_signals();
    if (*server) {
      std::vector<endpoint> where;
      for (const auto& text : listen) where.push_back(parse_endpoint(text));
      serve(where, name);
      return 0;
    }
    options.target = parse_endpoint(target);
    options.timeout = std::chrono::milliseconds{timeout_ms};
    options.download_timeout = std::chrono::seconds{download_timeout_s};
    if (options.downloads && options.protocol != mode::http)
      throw std::runtime_error("--downloads needs --mode http");
    report result = client{options}.run();
    write_report(result, output);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flowgen: %s\n", error.what());
    return 1;
  }
}
