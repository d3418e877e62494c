// SPDX-License-Identifier: Apache-2.0
// Instructions per packet of the whole packet path, for count.py. Under callgrind each
// scenario leaves one dump, which holds the instructions of its measured packets and nothing
// else; natively it only checks that the scenarios do what their names say.
//
//   scenarios           one JSON object per line: what was built by what, then each scenario
//   scenarios TEXT      only those whose name contains TEXT
//   scenarios --stages  larger ones for stages.py, which simulates caches: the packets pass through
//                       a few buffers, and a while before counting
#include <valgrind/callgrind.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "perf/common/path_world.hpp"

namespace sluice::perf {
namespace {

using abi::counter_id;
using abi::forward_mode;

constexpr std::size_t measured = 4096;  // packets
bool failed = false;

enum class traffic : std::uint8_t {
  hits,        // established flows at random
  replies,     // of NATed servers
  opening,     // SYNs of new flows, into a table that has room for them
  flood,       // SYNs of new flows, into a table full of established ones
  evicting,    // SYNs of new flows, into a table full of half-open ones
  not_for_us,  // to an address that has no service
};

struct scenario {
  std::string name;
  mix of;
  traffic what{traffic::hits};
  std::size_t burst{32};
};

const char* instruction_set() {
  switch (connection::best_instruction_set()) {
    case connection::instruction_set::avx512:
      return "avx512";
    case connection::instruction_set::avx2:
      return "avx2";
    default:
      return "scalar";
  }
}

// reply_of() turns a packet that has been NATed into the server's answer.
void reply_of(std::byte* frame, bool v6) {
  auto* b = reinterpret_cast<unsigned char*>(frame);
  std::swap_ranges(b, b + 6, b + 6);
  const std::size_t first = v6 ? 22 : 26;
  const std::size_t size = v6 ? 16 : 4;
  std::swap_ranges(b + first, b + first + size, b + first + size);
  const std::size_t l4 = v6 ? 54 : 34;
  std::swap_ranges(b + l4, b + l4 + 2, b + l4 + 2);
}

void prepare(const scenario& s, path_world& w, path_world::bursts& b, std::uint64_t round) {
  flow_picker pick{static_cast<std::uint32_t>(s.of.flows), round};
  const std::uint32_t length = w.frames.length();
  const auto unseen = static_cast<std::uint32_t>(s.of.flows + (1 << 26) + round * measured);
  for (std::size_t i = 0; i < b.packets(); ++i) {
    std::byte* const frame = b.set(i, length);
    switch (s.what) {
      case traffic::hits:
      case traffic::replies:
        w.frames.write(frame, pick.next());
        break;
      case traffic::not_for_us:
        w.frames.write(frame, pick.next());
        frame[s.of.v6 ? 14 + 24 + 8 : 14 + 16 + 1] ^= std::byte{0x40};
        if (!s.of.v6) {  // the checksum with it
          wire::ipv4_header& ip = *reinterpret_cast<wire::ipv4_header*>(frame + 14);
          ip.checksum = be16{};
          ip.checksum = wire::checksum(wire::sum({frame + 14, 20}));
        }
        break;
      default:
        w.frames.write(frame, unseen + static_cast<std::uint32_t>(i), flag_syn);
    }
  }
  if (s.what != traffic::replies) return;
  b.run(*w.path, w.now_ns);
  for (std::size_t i = 0; i < b.packets(); ++i) {
    const packet p = b.at(i);
    std::array<std::byte, 128> frame{};
    std::memcpy(frame.data(), p.data, p.length);
    reply_of(frame.data(), s.of.v6);
    std::memcpy(b.set(i, p.total_length), frame.data(), p.length);
  }
}

// want() ends the run with an error when a scenario is not what it says.
void want(bool holds, const scenario& s, const char* what, std::uint64_t n) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s: %llu of %zu packets\n", s.name.c_str(), what,
               static_cast<unsigned long long>(n), measured);
  failed = true;
}

// fill_table() enters all flows: established, or half-open to be evicted.
void fill_table(const scenario& s, path_world& w) {
  if (s.what != traffic::evicting) return w.establish();
  path_world::bursts fill{64, 32};
  for (std::uint64_t f = 0; f < s.of.flows; f += fill.packets()) {
    for (std::size_t i = 0; i < fill.packets(); ++i)
      w.frames.write(fill.set(i, w.frames.length()), static_cast<std::uint32_t>(f + i), flag_syn);
    fill.run(*w.path, w.now_ns);
  }
  w.now_ns += 2'000'000'000;  // the half-open ones are older, but not expired
}

void run(const scenario& s) {
  path_world w{s.of};
  fill_table(s, w);
  path_world::bursts b{measured / s.burst, s.burst};
  // Once without counting: every backend's row has been looked at then.
  for (std::uint64_t round = 1; round <= 16; ++round) {
    if (s.what == traffic::opening || s.what == traffic::flood || s.what == traffic::evicting)
      break;
    prepare(s, w, b, round);
    b.run(*w.path, w.now_ns);
  }
  prepare(s, w, b, 100);
  const auto count = [&w](counter_id id) { return w.counted(id); };
  const std::uint64_t forwarded = count(counter_id::forwarded);
  const std::uint64_t hits = count(counter_id::connection_hits);
  const std::uint64_t opened = count(counter_id::connections_opened);
  const std::uint64_t evicted = count(counter_id::connections_evicted);
  const std::uint64_t replied = count(counter_id::nat_replies);
  const std::uint64_t strange = count(counter_id::drop_not_for_us);
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
  b.run(*w.path, w.now_ns);
  CALLGRIND_DUMP_STATS_AT(s.name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
  const std::uint64_t sent = count(counter_id::forwarded) - forwarded;
  const std::uint64_t hit = count(counter_id::connection_hits) - hits;
  const std::uint64_t new_ones = count(counter_id::connections_opened) - opened;
  const std::uint64_t gone = count(counter_id::connections_evicted) - evicted;
  switch (s.what) {
    case traffic::hits:
      want(sent == measured, s, "not all forwarded", sent);
      want(hit == measured, s, "not all hits", hit);
      break;
    case traffic::replies: {
      const std::uint64_t replies = count(counter_id::nat_replies) - replied;
      want(replies == measured, s, "not all replies", replies);
      break;
    }
    case traffic::opening:
      want(sent == measured, s, "not all forwarded", sent);
      want(new_ones == measured, s, "not all opened", new_ones);
      break;
    case traffic::flood:
      want(sent == measured, s, "not all forwarded", sent);
      want(new_ones < measured / 20, s, "entered", new_ones);
      break;
    case traffic::evicting:
      want(sent == measured, s, "not all forwarded", sent);
      want(gone > measured / 2, s, "evicted", gone);
      break;
    case traffic::not_for_us:
      want(count(counter_id::drop_not_for_us) - strange == measured, s, "not for us",
           count(counter_id::drop_not_for_us) - strange);
  }
  std::printf("{\"name\": \"%s\", \"packets\": %zu}\n", s.name.c_str(), measured);
  std::fflush(stdout);
}

// run_stages() counts `measured` packets as well, in 64 buffers that are used again and again,
// after as many more have warmed the simulated caches. Writing the frames is counted too.
void run_stages(const scenario& s) {
  path_world w{s.of};
  fill_table(s, w);
  path_world::bursts b{1, s.burst};
  const auto go = [&](std::uint64_t from, std::size_t packets) {
    for (std::uint64_t round = from; round < from + packets / s.burst; ++round) {
      prepare(s, w, b, round);
      b.run(*w.path, w.now_ns);
    }
  };
  if (s.what == traffic::hits) go(1, 16 * measured);  // what is made once in a generation
  CALLGRIND_START_INSTRUMENTATION;
  go(10'000, 8 * measured);
  CALLGRIND_ZERO_STATS;
  go(20'000, 4 * measured);
  CALLGRIND_DUMP_STATS_AT(s.name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
  std::printf("{\"name\": \"%s\", \"packets\": %zu}\n", s.name.c_str(), 4 * measured);
  std::fflush(stdout);
}

std::vector<scenario> staged() {
  std::vector<scenario> v;
  constexpr std::uint64_t million = 1'000'000;
  const auto add = [&v](const char* name, forward_mode mode, bool v6, std::uint64_t flows,
                        std::uint64_t room, traffic what) {
    mix m;
    m.mode = mode;
    m.v6 = m.v6_backends = v6;
    m.flows = flows;
    m.room = room;
    v.push_back({name, m, what, 64});
  };
  add("path.ipip.v4.1k", forward_mode::ipip, false, 1000, 0, traffic::hits);
  add("path.ipip.v4.1M", forward_mode::ipip, false, million, 0, traffic::hits);
  add("path.ipip.v6.1M", forward_mode::ipip, true, million, 0, traffic::hits);
  add("path.nat.v4.1M", forward_mode::nat, false, million, 0, traffic::hits);
  add("path.new_flows", forward_mode::ipip, false, 3 * million, million, traffic::evicting);
  add("path.synflood", forward_mode::ipip, false, 3 * million, million, traffic::flood);
  return v;
}

std::vector<scenario> all() {
  std::vector<scenario> v;
  const auto mixed = [](forward_mode mode, bool v6, std::uint64_t flows) {
    mix m;
    m.mode = mode;
    m.v6 = m.v6_backends = v6;
    m.flows = flows;
    return m;
  };
  const auto ipip = forward_mode::ipip;
  constexpr std::uint64_t k = 1000;
  v.push_back({"hit.ipip.v4.1flow", mixed(ipip, false, 1)});
  v.push_back({"hit.ipip.v4.1k", mixed(ipip, false, k)});
  v.push_back({"hit.ipip.v4.100k", mixed(ipip, false, 100 * k)});
  v.push_back({"hit.ipip.v4.1M", mixed(ipip, false, k * k)});
  v.push_back({"hit.ipip.v6.1k", mixed(ipip, true, k)});
  v.push_back({"hit.ipip.v6.1M", mixed(ipip, true, k * k)});
  for (const std::size_t burst : {1u, 8u, 64u, 256u})
    v.push_back({"hit.ipip.v4.10k.burst" + std::to_string(burst), mixed(ipip, false, 10 * k),
                 traffic::hits, burst});
  mix m = mixed(ipip, false, 10 * k);
  m.vlan = true;
  v.push_back({"hit.ipip.v4.vlan.10k", m});
  m = mixed(ipip, false, 10 * k);
  m.udp = true;
  v.push_back({"hit.ipip.v4.udp.10k", m});
  m = mixed(ipip, false, 10 * k);
  m.v6_backends = true;
  v.push_back({"hit.ipip.v4-in-v6.10k", m});
  m = mixed(ipip, true, 10 * k);
  m.v6_backends = false;
  v.push_back({"hit.ipip.v6-in-v4.10k", m});
  const std::vector<std::pair<forward_mode, std::string>> modes{
      {forward_mode::dsr_l2, "dsr-l2"}, {forward_mode::gue, "gue"},
      {forward_mode::gre, "gre"},       {forward_mode::dsr_dscp, "dsr-dscp"},
      {forward_mode::nat, "nat"},       {forward_mode::full_nat, "full-nat"}};
  for (const auto& [mode, name] : modes)
    for (const bool v6 : {false, true})
      v.push_back({"hit." + name + (v6 ? ".v6.10k" : ".v4.10k"), mixed(mode, v6, 10 * k)});
  for (const bool v6 : {false, true})
    v.push_back({v6 ? "reply.nat.v6.10k" : "reply.nat.v4.10k", mixed(forward_mode::nat, v6, 10 * k),
                 traffic::replies});
  for (const bool v6 : {false, true}) {
    const std::string family = v6 ? "v6" : "v4";
    mix roomy = mixed(ipip, v6, 100 * k);
    roomy.room = 110 * k;
    v.push_back({"open.ipip." + family + ".100k", roomy, traffic::opening});
    // A table at its size and beyond: more flows than the eight places of a key can hold.
    mix full = mixed(ipip, v6, 150 * k);
    full.room = 50 * k;
    v.push_back({"flood.ipip." + family + ".100k", full, traffic::flood});
    v.push_back({"evict.ipip." + family + ".100k", full, traffic::evicting});
  }
  v.push_back({"rest.v4", mixed(ipip, false, k), traffic::not_for_us});
  return v;
}

}  // namespace
}  // namespace sluice::perf

int main(int argc, char** argv) {
  using namespace sluice::perf;
  std::string only = argc > 1 ? argv[1] : "";
  const bool stages = only == "--stages";
  if (stages) only = argc > 2 ? argv[2] : "";
  if (only == "--help" || only == "-h") {
    std::puts(
        "usage: scenarios [--stages] [TEXT]   (count.py and stages.py run it under callgrind)");
    return 0;
  }
  std::printf("{\"compiler\": \"%s %s\", \"instruction_set\": \"%s\"}\n",
#ifdef __clang__
              "clang",
#else
              "gcc",
#endif
              __VERSION__, instruction_set());
  for (const scenario& s : stages ? staged() : all())
    if (s.name.find(only) != std::string::npos) stages ? run_stages(s) : run(s);
  return failed ? 1 : 0;
}
