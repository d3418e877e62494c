// SPDX-License-Identifier: Apache-2.0
// A source of flows for any DPDK program with a net_null port, preloaded into it
// (LD_PRELOAD): rte_eth_dev_start() puts a callback on every RX queue of the port that writes
// the headers of flow_frames.hpp into the buffers that net_null hands out. sluice-dataplane and
// testpmd so receive the same packets, in the same way, and are measured by the same clock.
//
// SLUICE_SOURCE="traffic=hits flows=1000000 services=100 turns=…":
//   traffic    hits: each flow's handshake, then established flows at random
//              random: only the latter, for programs that know no connections
//              opening: SYNs of flows never seen
//              flood: handshakes of `flows`, then SYNs of flows never seen
//              none: packets as they are, also those of net_pcap
//   flows, services, v6 (0 or 1; 2: every other flow)
//   pace       flows that are opened per second, at most (0: as many as go)
//   passes     of all flows' handshakes (1)
//   warm       packets before the first turn, at least
//   buffers    more of them in each packet pool, all of them small: net_pcap's infinite_rx keeps
//   the
//              whole capture in buffers of the queue's pool
//   turns      where FIFOs are, two for each queue; without, nothing is measured
//
// Programs that share a core take turns. A queue says "ready" on its FIFO TURNS.QUEUE.slice and
// then holds its worker, in the callback, until there is a line on TURNS.QUEUE.turn: "WARM
// SECONDS". It lets packets pass for WARM seconds, counts those of SECONDS more, says "PACKETS
// SECONDS CPU", CPU being the seconds of the core that its thread has had, and holds its worker
// again. Once nobody has TURNS.QUEUE.turn open for writing, packets pass uncounted.
#include <dlfcn.h>
#include <fcntl.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
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
  bool mixed{false};
  double pace{0};
  unsigned passes{1};
  std::uint64_t warm{1'000'000};
  unsigned buffers{0};
  std::string turns;
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
        w.mixed = value == "2";
      } else if (key == "pace") {
        w.pace = std::stod(value);
      } else if (key == "passes") {
        w.passes = static_cast<unsigned>(std::stoul(value));
      } else if (key == "warm") {
        w.warm = std::stoull(value);
      } else if (key == "buffers") {
        w.buffers = static_cast<unsigned>(std::stoul(value));
      } else if (key == "turns") {
        w.turns = value;
      } else {
        refuse(key + ": unknown");
      }
    } catch (const std::exception&) {
      refuse(word + ": bad value");
    }
  }
  if (w.flows == 0 || w.flows > (1u << 26)) refuse("flows: 1 to 67108864");
  return w;
}

std::uint64_t cycles(double seconds) {
  return static_cast<std::uint64_t>(seconds * static_cast<double>(rte_get_tsc_hz()));
}

// turn_keeper is one queue's pair of FIFOs.
class turn_keeper {
 public:
  turn_keeper(const std::string& turns, unsigned queue) {
    if (turns.empty()) return;
    const std::string name = turns + "." + std::to_string(queue);
    // Whoever gives the turns has both open already.
    turn_ = ::open((name + ".turn").c_str(), O_RDONLY | O_CLOEXEC);
    slice_ = ::open((name + ".slice").c_str(), O_WRONLY | O_CLOEXEC);
    if (turn_ < 0 || slice_ < 0) refuse(name + ".turn and .slice: " + std::strerror(errno));
  }
  turn_keeper(const turn_keeper&) = delete;
  turn_keeper& operator=(const turn_keeper&) = delete;
  ~turn_keeper() {
    if (turn_ >= 0) ::close(turn_);
    if (slice_ >= 0) ::close(slice_);
  }

  void say(const char* text) const noexcept {
    if (::write(slice_, text, std::strlen(text)) < 0) std::perror("flow source: a slice is lost");
  }

  // wait() waits for a turn; false: there will be none.
  bool wait(double& warm, double& seconds) const noexcept {
    if (turn_ < 0) return false;
    std::array<char, 64> line{};
    for (std::size_t n = 0; n + 1 < line.size(); ++n) {
      ssize_t got;
      while ((got = ::read(turn_, &line[n], 1)) < 0 && errno == EINTR) {
      }
      if (got != 1) return false;
      if (line[n] == '\n') break;
    }
    char* rest = nullptr;
    warm = std::strtod(line.data(), &rest);
    seconds = std::strtod(rest, nullptr);
    return seconds > 0;
  }

 private:
  int turn_{-1};
  int slice_{-1};
};

// source is one queue's, and its worker's alone.
class source {
 public:
  source(const wish& w, unsigned queue)
      : wish_{w},
        frames_{flow_frames{w.shape}, flow_frames{other_of(w)}},
        pick_{w.flows, queue + 1},
        turns_{w.turns, queue} {
    if (w.what == traffic::hits || w.what == traffic::flood) stage_ = stage::handshakes;
  }

  void fill(rte_mbuf** packets, std::uint16_t n) noexcept {
    switch (stage_) {
      case stage::handshakes:
        open(packets, n);
        return;
      case stage::warm:
        if (given_ >= wish_.warm) {
          if (!wish_.turns.empty()) turns_.say("ready\n");
          take_turn();
        }
        break;
      case stage::turn:
      case stage::measure:
        // Looking at the clock once in some 2,000 packets costs next to nothing.
        if ((++calls_ & 63) == 0) look();
        break;
      case stage::done:
        break;
    }
    given_ += n;
    switch (wish_.what) {
      case traffic::hits:
      case traffic::random:
        for (std::uint16_t i = 0; i < n; ++i)
          write(rte_pktmbuf_mtod(packets[i], void*), pick_.next());
        return;
      case traffic::opening:
      case traffic::flood:
        for (std::uint16_t i = 0; i < n; ++i) {
          write(rte_pktmbuf_mtod(packets[i], void*), first_unseen + unseen_, flag_syn);
          unseen_ = (unseen_ + 1) & (first_unseen - 1);
        }
        return;
      case traffic::none:
        return;
    }
  }

 private:
  enum class stage : std::uint8_t { handshakes, warm, turn, measure, done };
  static constexpr std::uint32_t first_unseen = 1u << 27;

  static flow_frames::shape other_of(const wish& w) {
    flow_frames::shape s = w.shape;
    s.v6 = s.v6 || w.mixed;
    return s;
  }
  void write(void* frame, std::uint32_t flow, std::uint8_t flags = flag_ack) const noexcept {
    frames_[flow & 1].write(frame, flow, flags);
  }

  // open() sends the SYNs of up to 32 flows in a row, then their ACKs.
  void open(rte_mbuf** packets, std::uint16_t n) noexcept {
    for (std::uint16_t i = 0; i < n; ++i) {
      const std::uint32_t flow = (group_ + at_) % wish_.flows;
      write(rte_pktmbuf_mtod(packets[i], void*), flow, acks_ ? flag_ack : flag_syn);
      if (++at_ < 32) continue;
      at_ = 0;
      if (acks_) group_ += 32;
      acks_ = !acks_;
      if (group_ < wish_.flows || acks_) continue;
      if (++passed_ >= wish_.passes)
        stage_ = stage::warm;
      else
        group_ = 0;
      begun_ = 0;
    }
    if (wish_.pace <= 0) return;
    if (begun_ == 0) begun_ = rte_rdtsc();
    while (rte_rdtsc() - begun_ < cycles(group_ / wish_.pace)) rte_pause();
  }

  static double cpu_seconds() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }

  void take_turn() noexcept {
    double warm = 0;
    if (!turns_.wait(warm, seconds_)) {
      stage_ = stage::done;
      return;
    }
    stage_ = stage::turn;
    end_ = rte_rdtsc() + cycles(warm);
  }

  void look() noexcept {
    const std::uint64_t now = rte_rdtsc();
    if (now < end_) return;
    const double cpu = cpu_seconds();
    if (stage_ == stage::turn) {
      stage_ = stage::measure;
      given_ = 0;
      begun_ = now;
      begun_cpu_ = cpu;
      end_ = now + cycles(seconds_);
      return;
    }
    std::array<char, 80> line{};
    std::snprintf(line.data(), line.size(), "%llu %.9f %.9f\n",
                  static_cast<unsigned long long>(given_),
                  static_cast<double>(now - begun_) / static_cast<double>(rte_get_tsc_hz()),
                  cpu - begun_cpu_);
    turns_.say(line.data());
    take_turn();
  }

  const wish wish_;
  // Of even flows, and of odd ones.
  std::array<flow_frames, 2> frames_;
  flow_picker pick_;
  turn_keeper turns_;
  stage stage_{stage::warm};
  bool acks_{false};
  unsigned passed_{0};
  std::uint32_t group_{0};
  std::uint32_t at_{0};
  std::uint32_t unseen_{0};
  std::uint64_t given_{0};
  std::uint64_t calls_{0};
  std::uint64_t begun_{0};
  std::uint64_t end_{0};
  double begun_cpu_{0};
  double seconds_{0};
};

std::vector<std::unique_ptr<source>> sources;

std::uint16_t on_receive(std::uint16_t /*port*/, std::uint16_t /*queue*/, rte_mbuf** packets,
                         std::uint16_t n, std::uint16_t /*most*/, void* self) {
  static_cast<source*>(self)->fill(packets, n);
  return n;
}

void attach(std::uint16_t port) {
  rte_eth_dev_info info{};
  if (rte_eth_dev_info_get(port, &info) != 0) return;
  const wish w = read_wish();
  if (std::strcmp(info.driver_name, w.buffers != 0 ? "net_pcap" : "net_null") != 0) return;
  for (std::uint16_t queue = 0; queue < info.nb_rx_queues; ++queue) {
    sources.push_back(std::make_unique<source>(w, queue));
    if (rte_eth_add_rx_callback(port, queue, on_receive, sources.back().get()) == nullptr)
      refuse("no RX callback: DPDK was built without");
  }
}

}  // namespace
}  // namespace sluice::perf

// Both take the place of DPDK's, which they call.
extern "C" __attribute__((visibility("default"))) rte_mempool* rte_pktmbuf_pool_create(
    const char* name, unsigned n, unsigned cache, std::uint16_t privately, std::uint16_t room,
    int socket) {
  using create =
      rte_mempool* (*)(const char*, unsigned, unsigned, std::uint16_t, std::uint16_t, int);
  static const auto next = reinterpret_cast<create>(dlsym(RTLD_NEXT, "rte_pktmbuf_pool_create"));
  if (next == nullptr) std::abort();
  constexpr std::uint16_t small = RTE_PKTMBUF_HEADROOM + 128;
  const unsigned more = sluice::perf::read_wish().buffers;
  return next(name, n + more, cache, privately, more != 0 ? small : room, socket);
}

extern "C" __attribute__((visibility("default"))) int rte_eth_dev_start(std::uint16_t port) {
  using start = int (*)(std::uint16_t);
  static const auto next = reinterpret_cast<start>(dlsym(RTLD_NEXT, "rte_eth_dev_start"));
  if (next == nullptr) std::abort();
  const int result = next(port);
  if (result == 0) sluice::perf::attach(port);
  return result;
}
