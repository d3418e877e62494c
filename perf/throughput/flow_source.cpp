// SPDX-License-Identifier: Apache-2.0
// A source of flows for any DPDK program with a net_null port, preloaded into it
// (LD_PRELOAD): rte_eth_dev_start() puts a callback on every RX queue of the port that writes
// the headers of flow_frames.hpp into the buffers that net_null hands out. sluice-dataplane and
// testpmd so receive the same packets, in the same way, and are measured by the same clock:
// the source counts what is asked of it from the end of the warm-up on.
//
// SLUICE_SOURCE="traffic=hits flows=1000000 services=100 seconds=2 …":
//   traffic    hits: each flow's handshake, then established flows at random
//              random: only the latter, for programs that know no connections
//              opening: SYNs of flows never seen
//              flood: handshakes of `flows`, then SYNs of flows never seen
//              none: net_null's packets as they are
//   flows, services, v6 (0 or 1), seconds, warm (packets before measuring, at least)
//   result     a file to write, one per queue: result.0, …
#include <dlfcn.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "perf/common/flow_frames.hpp"

namespace sluice::perf {
namespace {

enum class traffic : std::uint8_t { hits, random, opening, flood, none };

struct wish {
  traffic what{traffic::random};
  std::uint32_t flows{1000};
  flow_frames::shape shape{};
  double seconds{1};
  std::uint64_t warm{1'000'000};
  std::string result;
};

[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "flow source: SLUICE_SOURCE: %s\n", what.c_str());
  std::_Exit(2);
}

wish read_wish() {
  const char* text = std::getenv("SLUICE_SOURCE");
  if (text == nullptr) refuse("is not set");
  wish w;
  std::istringstream words{text};
  const std::map<std::string, traffic> kinds{{"hits", traffic::hits},
                                             {"random", traffic::random},
                                             {"opening", traffic::opening},
                                             {"flood", traffic::flood},
                                             {"none", traffic::none}};
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) refuse(word + ": no value");
    const std::string key = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    try {
      if (key == "traffic") {
        w.what = kinds.at(value);
      } else if (key == "flows") {
        w.flows = static_cast<std::uint32_t>(std::stoul(value));
      } else if (key == "services") {
        w.shape.services = static_cast<std::uint32_t>(std::stoul(value));
      } else if (key == "v6") {
        w.shape.v6 = value == "1";
      } else if (key == "seconds") {
        w.seconds = std::stod(value);
      } else if (key == "warm") {
        w.warm = std::stoull(value);
      } else if (key == "result") {
        w.result = value;
      } else {
        refuse(key + ": unknown");
      }
    } catch (const std::exception&) {
      refuse(word + ": bad value");
    }
  }
  if (w.flows == 0 || w.flows > (1u << 26)) refuse("flows: 1 to 67108864");
  if (w.result.empty()) refuse("result is missing");
  return w;
}

// source is one queue's, and its worker's alone.
class source {
 public:
  source(const wish& w, unsigned queue)
      : wish_{w}, frames_{w.shape}, pick_{w.flows, queue + 1}, queue_{queue} {
    if (w.what == traffic::hits || w.what == traffic::flood) stage_ = stage::handshakes;
  }

  void fill(rte_mbuf** packets, std::uint16_t n) noexcept {
    switch (stage_) {
      case stage::handshakes:
        open(packets, n);
        return;
      case stage::warm:
        if (given_ >= wish_.warm) begin();
        break;
      case stage::measure:
        // Looking at the clock once in some 32,000 packets costs nothing.
        if ((++calls_ & 1023) == 0) look();
        break;
      case stage::done:
        break;
    }
    given_ += n;
    switch (wish_.what) {
      case traffic::hits:
      case traffic::random:
        for (std::uint16_t i = 0; i < n; ++i)
          frames_.write(rte_pktmbuf_mtod(packets[i], void*), pick_.next());
        return;
      case traffic::opening:
      case traffic::flood:
        for (std::uint16_t i = 0; i < n; ++i) {
          frames_.write(rte_pktmbuf_mtod(packets[i], void*), first_unseen + unseen_, flag_syn);
          unseen_ = (unseen_ + 1) & (first_unseen - 1);
        }
        return;
      case traffic::none:
        return;
    }
  }

 private:
  enum class stage : std::uint8_t { handshakes, warm, measure, done };
  static constexpr std::uint32_t first_unseen = 1u << 27;

  // open() sends the SYNs of up to 32 flows in a row, then their ACKs.
  void open(rte_mbuf** packets, std::uint16_t n) noexcept {
    for (std::uint16_t i = 0; i < n; ++i) {
      const std::uint32_t flow = (group_ + at_) % wish_.flows;
      frames_.write(rte_pktmbuf_mtod(packets[i], void*), flow, acks_ ? flag_ack : flag_syn);
      if (++at_ < 32) continue;
      at_ = 0;
      if (acks_) group_ += 32;
      acks_ = !acks_;
      if (group_ >= wish_.flows && !acks_) stage_ = stage::warm;
    }
  }

  void begin() noexcept {
    stage_ = stage::measure;
    given_ = 0;
    begun_ = rte_rdtsc();
    end_ =
        begun_ + static_cast<std::uint64_t>(wish_.seconds * static_cast<double>(rte_get_tsc_hz()));
  }

  void look() noexcept {
    const std::uint64_t now = rte_rdtsc();
    if (now < end_) return;
    stage_ = stage::done;
    const double seconds =
        static_cast<double>(now - begun_) / static_cast<double>(rte_get_tsc_hz());
    const std::string name = wish_.result + "." + std::to_string(queue_);
    const std::string unfinished = name + ".new";
    std::FILE* file = std::fopen(unfinished.c_str(), "w");
    if (file == nullptr) return;
    std::fprintf(file, "{\"queue\": %u, \"packets\": %llu, \"seconds\": %.6f}\n", queue_,
                 static_cast<unsigned long long>(given_), seconds);
    std::fclose(file);
    std::rename(unfinished.c_str(), name.c_str());
  }

  const wish wish_;
  flow_frames frames_;
  flow_picker pick_;
  unsigned queue_;
  stage stage_{stage::warm};
  bool acks_{false};
  std::uint32_t group_{0};
  std::uint32_t at_{0};
  std::uint32_t unseen_{0};
  std::uint64_t given_{0};
  std::uint64_t calls_{0};
  std::uint64_t begun_{0};
  std::uint64_t end_{0};
};

std::vector<std::unique_ptr<source>> sources;

std::uint16_t on_receive(std::uint16_t /*port*/, std::uint16_t /*queue*/, rte_mbuf** packets,
                         std::uint16_t n, std::uint16_t /*most*/, void* self) {
  static_cast<source*>(self)->fill(packets, n);
  return n;
}

void attach(std::uint16_t port) {
  rte_eth_dev_info info{};
  if (rte_eth_dev_info_get(port, &info) != 0 || std::strcmp(info.driver_name, "net_null") != 0)
    return;
  const wish w = read_wish();
  for (std::uint16_t queue = 0; queue < info.nb_rx_queues; ++queue) {
    sources.push_back(std::make_unique<source>(w, queue));
    if (rte_eth_add_rx_callback(port, queue, on_receive, sources.back().get()) == nullptr)
      refuse("no RX callback: DPDK was built without");
  }
}

}  // namespace
}  // namespace sluice::perf

// Takes the place of DPDK's, which it calls.
extern "C" __attribute__((visibility("default"))) int rte_eth_dev_start(std::uint16_t port) {
  using start = int (*)(std::uint16_t);
  static const auto next = reinterpret_cast<start>(dlsym(RTLD_NEXT, "rte_eth_dev_start"));
  if (next == nullptr) std::abort();
  const int result = next(port);
  if (result == 0) sluice::perf::attach(port);
  return result;
}
