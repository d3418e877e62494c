// SPDX-License-Identifier: Apache-2.0
// traffic: generator and counting sink in one DPDK process, on one core, over two memif ports, or
// as vhost-user's side of two virtio devices.
// Sends by the first and expects everything back by the second: from sluice-dataplane, or from any
// program that forwards. Finds the highest rate without loss and the latency below it.
// perf/throughput/memif.py starts it together with what it measures.
#include <arpa/inet.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "perf/throughput/rate_search.hpp"
#include "perf/throughput/trial.hpp"

namespace sluice::perf {
namespace {

std::atomic<bool> stop{false};

// A generator that cannot send more than this part of what was asked is the limit itself.
constexpr double unsent = 0.02;
constexpr double above_flat_out = 1.5;
// Whoever is held up for some milliseconds loses no more than this. That may be the machine's
// doing, and is tried again.
constexpr double mishap = 0.05;
constexpr unsigned buffers = 16384;

struct wish {
  std::string socket;
  std::string link{"memif"};
  std::string role{"server"};
  bool zero_copy{false};
  bool no_huge{false};
  unsigned cpu{0};
  unsigned ring_bits{10};
  std::uint32_t flows{1000};
  std::uint32_t services{100};
  std::uint32_t backends{100};
  way through{way::io};
  bool v6{false};
  bool imix{false};
  std::string next_hop{"02:00:00:00:00:00"};
  std::string encap_source;
  std::string first_backend;
  double trial_seconds{2};
  double drain_seconds{0.5};
  double wait_seconds{60};
  double loss{0};
  double highest{30};  // Mpps
  double lowest{0.01};
  double resolution{0.02};
  unsigned tries{1};
  unsigned burst{32};
  unsigned bucket{256};
  std::vector<double> fractions{0.1, 0.5, 0.9};
  std::string json;
  bool stay{};
};

ip_address address_of(const std::string& text, bool v6) {
  std::array<std::uint8_t, 16> b{};
  if (::inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), b.data()) != 1)
    throw std::runtime_error{text + ": no IPv" + (v6 ? "6" : "4") + " address"};
  return v6 ? ip_address::v6(b) : ip_address::v4({b[0], b[1], b[2], b[3]});
}

expectation expected(const wish& w) {
  expectation e;
  e.through = w.through;
  e.backends = w.backends;
  const auto given = [&w](const std::string& text, const char* v4, const char* v6) {
    return address_of(!text.empty() ? text : w.v6 ? v6 : v4, w.v6);
  };
  e.encap_source = given(w.encap_source, "192.0.2.10", "2001:db8:9::1");
  e.first_backend = given(w.first_backend, "172.16.0.0", "2001:db8:2::");
  rte_ether_addr mac{};
  if (rte_ether_unformat_addr(w.next_hop.c_str(), &mac) != 0)
    throw std::runtime_error{w.next_hop + ": no MAC address"};
  std::copy_n(mac.addr_bytes, e.next_hop.size(), e.next_hop.begin());
  return e;
}

// 64-byte frames (with the FCS, that no memory has; of IPv6 84), or the usual 7:4:1 of 64, 594 and
// 1498: the largest leaves room for an outer header below an MTU of 1500.
std::vector<std::uint16_t> payloads(const wish& w) {
  if (!w.imix) return {6};
  constexpr std::uint16_t small = 6, middle = 594 - 4 - 54, large = 1498 - 4 - 54;
  return {small, middle, small, small, middle, small, large, small, middle, small, middle, small};
}

void start_eal(const wish& w) {
  std::vector<std::string> args{"traffic",
                                "--lcores=0@" + std::to_string(w.cpu),
                                "--file-prefix=traffic" + std::to_string(::getpid()),
                                "--no-pci",
                                "--no-telemetry",
                                "--log-level=error",
                                "--iova-mode=va"};
  if (w.no_huge) {
    args.insert(args.end(), {"--no-huge", "--no-shconf", "-m", "128"});
  } else {
    args.insert(args.end(), {"--in-memory", "--single-file-segments"});
  }
  for (const char* id : {"0", "1"})
    args.push_back(w.link == "vhost"
                       ? std::string{"--vdev=net_vhost"} + id + ",iface=" + w.socket + "." + id
                       : std::string{"--vdev=net_memif"} + id + ",id=" + id + ",role=" + w.role +
                             ",socket=" + w.socket + ",socket-abstract=no,rsize=" +
                             std::to_string(w.ring_bits) + (w.zero_copy ? ",zero-copy=yes" : ""));
  std::vector<char*> pointers;
  for (std::string& a : args) pointers.push_back(a.data());
  if (rte_eal_init(static_cast<int>(pointers.size()), pointers.data()) < 0)
    throw std::runtime_error{std::string{"DPDK does not start: "} + rte_strerror(rte_errno)};
}

std::uint16_t start_port(const std::string& name, rte_mempool* pool) {
  std::uint16_t port = 0;
  const auto must = [&name](int error, const char* what) {
    if (error != 0) throw std::runtime_error{name + ": " + what + ": " + rte_strerror(-error)};
  };
  must(rte_eth_dev_get_port_by_name(name.c_str(), &port), "is the driver's package installed");
  const rte_eth_conf conf{};
  must(rte_eth_dev_configure(port, 1, 1, &conf), "configure");
  must(rte_eth_rx_queue_setup(port, 0, 1024, SOCKET_ID_ANY, nullptr, pool), "RX queue");
  must(rte_eth_tx_queue_setup(port, 0, 1024, SOCKET_ID_ANY, nullptr), "TX queue");
  must(rte_eth_dev_start(port), "start");
  return port;
}

// wait_for_links() waits for the other process at both ports.
void wait_for_links(const std::vector<std::uint16_t>& ports, double seconds) {
  const std::uint64_t end =
      rte_rdtsc() + static_cast<std::uint64_t>(seconds * static_cast<double>(rte_get_tsc_hz()));
  for (const std::uint16_t port : ports)
    for (;;) {
      rte_eth_link link{};
      if (rte_eth_link_get_nowait(port, &link) == 0 && link.link_status != 0) break;
      if (stop) return;
      if (rte_rdtsc() > end) throw std::runtime_error{"nobody is at the other end"};
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
}

nlohmann::json json_of(const trial_result& r, const latencies& took) {
  const auto us = [](std::uint64_t c) {
    return static_cast<double>(c) * 1e6 / static_cast<double>(rte_get_tsc_hz());
  };
  nlohmann::json out{{"wanted_mpps", r.wanted / 1e6},
                     {"mpps", r.rate() / 1e6},
                     {"seconds", r.seconds},
                     {"offered", r.offered},
                     {"refused", r.offered - r.accepted},
                     {"received", r.received},
                     {"lost", r.lost()},
                     {"loss", r.loss()},
                     {"gaps", r.gaps},
                     {"not_sent", r.missed},
                     {"wrong", r.wrong()}};
  for (std::size_t i = 1; i < r.faults.size(); ++i)
    if (r.faults[i] != 0) out["faults"][std::string{fault_names[i]}] = r.faults[i];
  if (took.total() != 0)
    out["latency_us"] = {{"p50", us(took.quantile(0.5))},
                         {"p99", us(took.quantile(0.99))},
                         {"p99.9", us(took.quantile(0.999))},
                         {"max", us(took.most())}};
  return out;
}

class session {
 public:
  session(const wish& w, trial_runner& runner) : wish_{w}, runner_{runner} {}

  nlohmann::json run() {
    if (!runner_.probe(wish_.wait_seconds)) return give_up("no right packet comes back");
    std::fprintf(stderr, "traffic: opening %u flows\n", wish_.flows);
    if (!runner_.open()) return give_up("the handshakes do not all come back right");
    out_["flat_out"] = trial("flat out", 0);
    // No more gets through at any rate, give or take what the machine does meanwhile.
    const double highest =
        std::clamp(last_.rate() * above_flat_out, wish_.lowest * 1e6, wish_.highest * 1e6);
    const double found = search_rate({highest, wish_.lowest * 1e6, wish_.resolution},
                                     [this](double rate) { return passes(rate); });
    out_["loss_free_mpps"] = found / 1e6;
    out_["limit"] = found == 0 ? "none found" : limit_;
    for (const double fraction : wish_.fractions) {
      if (found == 0 || stop) break;
      nlohmann::json row = trial("latency", found * fraction);
      row["fraction"] = fraction;
      out_["latency"].push_back(row);
    }
    out_["wrong"] = wrong_;
    if (stop) out_["error"] = "stopped by a signal";
    return out_;
  }

 private:
  nlohmann::json give_up(std::string why) {
    const trial_result& r = runner_.opening();
    for (std::size_t i = 1; i < r.faults.size(); ++i)
      if (r.faults[i] != 0)
        why += "; " + std::to_string(r.faults[i]) + " wrong: " + std::string{fault_names[i]};
    out_["error"] = stop ? "stopped by a signal" : why;
    return out_;
  }

  nlohmann::json trial(const char* what, double rate) {
    if (stop) return {};
    last_ = runner_.run(rate, wish_.trial_seconds);
    wrong_ += last_.wrong();
    std::fprintf(
        stderr, "traffic: %-8s %9.4f Mpps wanted, %9.4f through, %llu of %llu lost, %llu wrong\n",
        what, rate / 1e6, last_.rate() / 1e6, static_cast<unsigned long long>(last_.lost()),
        static_cast<unsigned long long>(last_.offered),
        static_cast<unsigned long long>(last_.wrong()));
    return json_of(last_, runner_.took());
  }

  bool passes(double rate) {
    for (unsigned tried = 1; !stop; ++tried) {
      nlohmann::json row = trial("search", rate);
      const bool sent = static_cast<double>(last_.missed) <=
                        unsent * static_cast<double>(last_.offered + last_.missed);
      const bool whole = last_.loss() <= wish_.loss && last_.wrong() == 0 && !last_.stopped;
      row["passed"] = sent && whole;
      out_["search"].push_back(row);
      if (sent && whole) return true;
      // Of the lowest rate that failed: why.
      limit_ = whole ? "the generator" : "loss";
      if (tried >= wish_.tries || last_.wrong() != 0 || last_.loss() > mishap) break;
    }
    return false;
  }

  const wish& wish_;
  trial_runner& runner_;
  trial_result last_;
  std::uint64_t wrong_{0};
  std::string limit_{"the highest rate that was asked for"};
  nlohmann::json out_;
};

int run(const wish& w) {
  const expectation e = expected(w);
  start_eal(w);
  rte_mempool* const pool =
      rte_pktmbuf_pool_create("traffic", buffers, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  if (pool == nullptr)
    throw std::runtime_error{std::string{"packet buffers: "} + rte_strerror(rte_errno)};
  const std::string name = "net_" + w.link;
  const std::vector<std::uint16_t> ports{start_port(name + "0", pool),
                                         start_port(name + "1", pool)};
  wait_for_links(ports, w.wait_seconds);
  trial_runner runner{{.out_port = ports[0],
                       .in_port = ports[1],
                       .flows = w.flows,
                       .burst = w.burst,
                       .bucket = w.bucket,
                       .drain_seconds = w.drain_seconds},
                      stamped_frames{w.v6, w.services, payloads(w), e},
                      pool,
                      stop};
  nlohmann::json out = session{w, runner}.run();
  if (w.json.empty()) {
    std::puts(out.dump(1).c_str());
  } else {
    std::ofstream file{w.json};
    file << out.dump(1) << "\n" << std::flush;
    if (!file) throw std::runtime_error{w.json + ": cannot be written"};
  }
  if (w.stay && !out.contains("error")) {
    std::fputs("traffic: done\n", stderr);
    while (!stop) std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  for (const std::uint16_t port : ports) {
    rte_eth_dev_stop(port);
    rte_eth_dev_close(port);
  }
  rte_eal_cleanup();
  if (out.contains("error")) {
    std::fprintf(stderr, "traffic: %s\n", out["error"].get<std::string>().c_str());
    return 1;
  }
  return out["wrong"] == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sluice::perf

int main(int argc, char** argv) {
  using namespace sluice::perf;
  wish w;
  CLI::App app{
      "Sends by one port, expects it back by another: loss-free rate (RFC 2544), latency, and "
      "whether each packet is the right one. Exit code 1: packets were wrong, or none came."};
  app.add_option("--link", w.link, "memif, or vhost: ours is the side that copies")
      ->check(CLI::IsMember({"memif", "vhost"}));
  app.add_option("--socket", w.socket,
                 "memif's, whose ports have the ids 0 (out) and 1 (in); of vhost SOCKET.0 and .1")
      ->required();
  app.add_option("--role", w.role, "server or client (of memif)")
      ->check(CLI::IsMember({"server", "client"}));
  app.add_flag("--zero-copy", w.zero_copy, "as client: lend the other side our buffers");
  app.add_flag("--no-huge", w.no_huge, "in ordinary memory");
  app.add_option("--cpu", w.cpu, "to run on");
  app.add_option("--ring-bits", w.ring_bits, "log2 of the ring's slots")->check(CLI::Range(5, 14));
  app.add_option("--flows", w.flows)->check(CLI::Range(1u, 1u << 26));
  app.add_option("--services", w.services)->check(CLI::Range(1u, 65536u));
  app.add_option("--backends", w.backends, "of each service")->check(CLI::Range(1u, 65536u));
  app.add_option("--through", w.through, "what the other side does: io, dsr-l2, ipip")
      ->transform(CLI::CheckedTransformer(std::map<std::string, way>{
          {"io", way::io}, {"dsr-l2", way::dsr_l2}, {"ipip", way::ipip}}));
  app.add_flag("--v6", w.v6, "IPv6: clients, services, and a tunnel's ends");
  app.add_flag("--imix", w.imix, "of IPv4: 64, 594 and 1498 bytes, 7:4:1, instead of 64");
  app.add_option("--next-hop", w.next_hop, "MAC address that packets must come back with");
  app.add_option("--encap-source", w.encap_source, "outer source address");
  app.add_option("--first-backend", w.first_backend, "the others follow, service by service");
  app.add_option("--trial", w.trial_seconds, "seconds")->check(CLI::Range(0.01, 3600.0));
  app.add_option("--drain", w.drain_seconds, "seconds without a packet that end a trial")
      ->check(CLI::Range(0.01, 60.0));
  app.add_option("--wait", w.wait_seconds, "seconds for the other side")
      ->check(CLI::Range(0.1, 3600.0));
  app.add_option("--loss", w.loss, "part of the packets that may be lost")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--max-rate", w.highest, "Mpps where the search begins")
      ->check(CLI::Range(0.001, 1000.0));
  app.add_option("--min-rate", w.lowest, "Mpps where it gives up")
      ->check(CLI::Range(0.00001, 1000.0));
  app.add_option("--resolution", w.resolution, "of the search, relative")
      ->check(CLI::Range(0.001, 0.5));
  app.add_option("--tries", w.tries, "of a rate, when no more than 5 % was lost")
      ->check(CLI::Range(1u, 100u));
  app.add_option("--burst", w.burst)->check(CLI::Range(1u, 256u));
  app.add_option("--bucket", w.bucket, "packets that may be sent late, at once")
      ->check(CLI::Range(1u, 65536u));
  app.add_option("--fractions", w.fractions, "of the rate found, for the latency")
      ->delimiter(',')
      ->check(CLI::Range(0.001, 1.0));
  app.add_option("--json", w.json, "the report's file (standard output)");
  // net_memif of DPDK 22.11 unmaps the rings when the other side goes: who polls ends first.
  app.add_flag("--stay", w.stay, "keep the memifs until a signal comes");
  CLI11_PARSE(app, argc, argv);
  if (w.v6 && w.imix) {
    std::fputs("traffic: --imix is of IPv4\n", stderr);
    return 2;
  }
  if (w.zero_copy && (w.role != "client" || w.no_huge || w.link != "memif")) {
    std::fputs("traffic: --zero-copy needs memif, --role client, and huge pages\n", stderr);
    return 2;
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP})
    std::signal(number, [](int) { stop.store(true, std::memory_order_relaxed); });
  try {
    return run(w);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "traffic: %s\n", error.what());
    return 1;
  }
}
