// SPDX-License-Identifier: Apache-2.0
// rows_tool: the rows of tests/packet through a running data plane, step by step, for
// rows_test.py:
//
//   rows_tool publish NODE                   the rows' tables, in place of the control plane
//   rows_tool steer NODE INTERFACE...        what the XDP program has to know of them
//   rows_tool wire NODE NAMESPACE P0 P1 K0 K1
//       runs the rows over AF_XDP ports: P0 and P1 are the peers of ports 0 and 1, here, K0 and
//       K1 the ports' interfaces, in the other namespace (a name under /run/netns)
//   rows_tool captures NODE DIRECTORY        in0.pcap and in1.pcap: what ports 0 and 1 receive
//   rows_tool counted NODE                   waits for all of them, and compares the counters
//   rows_tool received NODE DIRECTORY MAC0 MAC1    compares out0.pcap and out1.pcap
//
// On stdout JSON: how many rows there were of each kind, and what was wrong.
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "controlplane/bpf_loader/steer_maps.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/observations.hpp"
#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/node_file.hpp"
#include "tests/end_to_end/rows_wire.hpp"
#include "tests/packet/live_rows.hpp"
#include "tools/replay/capture.hpp"

namespace {

using namespace sluice;
using namespace sluice::test;

// Through the files every row goes this often: again when its connection is known.
constexpr unsigned rounds = 2;

template <class T, class E>
T must(tl::expected<T, E> value) {
  if (value) {
    if constexpr (!std::is_void_v<T>)
      return std::move(*value);
    else
      return;
  } else if constexpr (std::is_same_v<E, std::string>) {
    throw std::runtime_error{value.error()};
  } else if constexpr (std::is_same_v<E, bpf_loader::steer_error>) {
    throw std::runtime_error{value.error().text};
  } else {
    throw std::runtime_error{to_string(value.error())};
  }
}

void publish_tables(const node_config& node) {
  table_builder tables;
  fill_config(tables);
  auto segment =
      must(publish::config_segment::create_file(node.config_segment_path(), table_builder::limits));
  const std::uint64_t from = segment.layout().slots;
  if (segment.size() != tables.size()) throw std::logic_error{"two layouts"};
  must(segment.reserve(0, segment.size()));
  std::memcpy(segment.data() + from, tables.bytes() + from, segment.size() - from);
  abi::generation_writer<>::publish(segment.control().current, abi::generation_word::make(1, 0));
}

void tell_program(const node_config& node, const std::string& interface) {
  const auto segment = must(publish::config_segment::attach_file(node.config_segment_path()));
  must(bpf_loader::steer_maps{interface}.set(bpf_loader::contents_of(segment.view())));
}

std::shared_ptr<const publish::observations> observe(const node_config& node) {
  std::string error;
  auto seen = publish::observations::attach(node.observation_segment_path(), error);
  if (!seen) throw std::runtime_error{error};
  return seen;
}

nlohmann::json report(const std::vector<live_row>& rows, const std::vector<std::string>& wrong) {
  std::map<std::string, std::size_t> kinds{{"sent", 0}, {"counted", 0}, {"kernel", 0}};
  for (const live_row& r : rows)
    ++kinds[r.end == live_end::sent ? "sent" : r.end == live_end::kernel ? "kernel" : "counted"];
  return {{"rows", rows.size()}, {"kinds", kinds}, {"wrong", wrong}};
}

// in_namespace() has this thread make something in another network namespace.
template <class Make>
auto in_namespace(const std::string& name, Make&& make) {
  const int here = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const int there = ::open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC);
  if (here < 0 || there < 0 || ::setns(there, CLONE_NEWNET) != 0)
    throw std::runtime_error{"namespace " + name + ": " + std::strerror(errno)};
  auto made = make();
  if (::setns(here, CLONE_NEWNET) != 0) throw std::runtime_error{"no way back"};
  ::close(here);
  ::close(there);
  return made;
}

nlohmann::json over_wires(const node_config& node, const std::vector<row>& all,
                          const std::vector<std::string>& names) {
  auto kernel = in_namespace(names[0], [&names] {
    return std::array<wire, 2>{wire{names[3]}, wire{names[4]}};
  });
  const wires w{{wire{names[1]}, wire{names[2]}}, std::move(kernel)};
  const std::vector<live_row> rows = live_rows(all, live_port::af_xdp);
  return report(rows, run_over(w, *observe(node), rows));
}

void write_captures(const std::vector<live_row>& rows, const std::string& directory) {
  std::array<capture_writer, 2> files{must(capture_writer::create(directory + "/in0.pcap", true)),
                                      must(capture_writer::create(directory + "/in1.pcap", true))};
  std::uint64_t time = 1'000'000'000;
  for (unsigned round = 0; round < rounds; ++round)
    for (const live_row& r : rows)
      files.at(r.of->in_port).write(++time, std::as_bytes(std::span{r.of->in}));
  for (capture_writer& file : files) must(file.close());
}

nlohmann::json compare_counters(const std::vector<live_row>& rows,
                                const publish::observations& counted) {
  std::map<abi::counter_id, std::uint64_t> expected;
  std::uint64_t all = 0;
  for (const live_row& r : rows) {
    expected[r.counter] += rounds;
    all += rounds;
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  for (std::uint64_t ended = 0; ended < all && std::chrono::steady_clock::now() < deadline;) {
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
    ended = 0;
    for (std::size_t i = 0; i < abi::counter_count; ++i)
      if (const auto id = static_cast<abi::counter_id>(i); ends(id)) ended += counted.sum(id);
  }
  std::vector<std::string> wrong;
  for (std::size_t i = 0; i < abi::counter_count; ++i) {
    const auto id = static_cast<abi::counter_id>(i);
    if (!ends(id)) continue;
    if (const std::uint64_t got = counted.sum(id); got != expected[id])
      wrong.push_back(std::string{abi::counter_infos[i].name} + ": " + std::to_string(got) +
                      ", expected " + std::to_string(expected[id]));
  }
  return report(rows, wrong);
}

mac mac_of(const std::string& text) {
  mac m{};
  for (std::size_t i = 0; i < m.size(); ++i)
    m[i] = static_cast<std::uint8_t>(std::stoul(text.substr(i * 3, 2), nullptr, 16));
  return m;
}

// compare_captures() goes over what left by each port, in order. A port over files has a MAC
// address of its driver's choosing.
nlohmann::json compare_captures(const std::vector<live_row>& rows, const std::string& directory,
                                const std::array<mac, 2>& macs) {
  std::vector<std::string> wrong;
  for (std::uint8_t port = 0; port < 2; ++port) {
    const std::string path = directory + "/out" + std::to_string(port) + ".pcap";
    auto file = must(capture_reader::open(path));
    for (std::size_t i = 0; i < rows.size() * rounds && wrong.size() < 10; ++i) {
      const live_row& r = rows[i % rows.size()];
      if (r.end != live_end::sent || r.out_port != port) continue;
      bytes expected = r.out;
      std::ranges::copy(macs.at(port), expected.begin() + 6);
      const auto next = must(file.next());
      if (!next) {
        wrong.push_back(r.of->what + ": " + path + " has ended");
        break;
      }
      const auto* first = reinterpret_cast<const std::uint8_t*>(next->bytes.data());
      if (const bytes got(first, first + next->bytes.size()); got != expected)
        wrong.push_back(r.of->what + ": came:\n" + hex(got) + "\nexpected:\n" + hex(expected));
    }
    if (must(file.next())) wrong.push_back(path + ": frames behind the last one");
  }
  return report(rows, wrong);
}

int run(const std::vector<std::string>& args) {
  if (args.size() < 2) return 2;
  const node_config node = must(load_node_file(args[1]));
  const std::vector<row> all = all_rows();
  const auto chosen = [&all] { return live_rows(all, live_port::pcap); };
  if (args[0] == "publish" && args.size() == 2) {
    publish_tables(node);
  } else if (args[0] == "steer" && args.size() > 2) {
    for (std::size_t i = 2; i < args.size(); ++i) tell_program(node, args[i]);
  } else if (args[0] == "wire" && args.size() == 7) {
    std::cout << over_wires(node, all, {args.begin() + 2, args.end()}) << "\n";
  } else if (args[0] == "captures" && args.size() == 3) {
    write_captures(chosen(), args[2]);
  } else if (args[0] == "counted" && args.size() == 2) {
    std::cout << compare_counters(chosen(), *observe(node)) << "\n";
  } else if (args[0] == "received" && args.size() == 5) {
    std::cout << compare_captures(chosen(), args[2], {mac_of(args[3]), mac_of(args[4])}) << "\n";
  } else {
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "rows_tool: " << error.what() << "\n";
    return 1;
  }
}
