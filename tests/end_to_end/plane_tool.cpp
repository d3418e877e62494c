// SPDX-License-Identifier: Apache-2.0
// plane_tool: stands in for the control plane in tests of the data plane alone.
//
//   plane_tool publish NODE SERVICES   writes config.shm and one generation; all healthy
//   plane_tool again NODE SERVICES     publishes the next generation into the live segment
//   plane_tool spoil NODE              publishes a generation with impossible values
//   plane_tool version NODE NUMBER     a config segment of another layout version
//   plane_tool show NODE               observations as JSON
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "controlplane/config/config.hpp"
#include "controlplane/publish/config_segment.hpp"
#include "controlplane/publish/config_writer.hpp"
#include "controlplane/publish/memory_config.hpp"
#include "controlplane/publish/observations.hpp"
#include "dataplane/abi/generation.hpp"
#include "dataplane/abi/node_file.hpp"
#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/worker_state.hpp"

namespace {

using namespace sluice;

template <class T, class E>
T must(tl::expected<T, E> value) {
  if (value) return std::move(*value);
  if constexpr (std::is_same_v<E, std::string>)
    throw std::runtime_error{value.error()};
  else
    throw std::runtime_error{to_string(value.error())};
}

abi::config_limits limits_of(const node_config& node) {
  const limits_config& l = node.controlplane.limits;
  return {l.services, l.backends, std::uint64_t{l.table_memory_mib} << 20};
}

void publish_tables(const node_config& node, const std::string& services, bool again) {
  std::ifstream file{services};
  std::stringstream text;
  text << file.rdbuf();
  const auto state = must(config::parse_services(text.str(), services, config::context::of(node)));
  const auto options = publish::options_of(node);
  const auto wanted = publish::all_healthy(state, options);
  const auto watch =
      std::make_shared<publish::observation_follower>(node.observation_segment_path());
  watch->refresh();
  auto segment =
      again
          ? must(publish::config_segment::attach_file(node.config_segment_path()))
          : must(publish::config_segment::create_file(node.config_segment_path(), limits_of(node)));
  auto writer =
      again ? must(publish::config_writer::attach(std::move(segment), options.settings, watch))
            : publish::config_writer::fresh(std::move(segment), options.settings, watch);
  const auto done = writer->publish(wanted);
  if (done.status != publish::publish_status::published) throw std::runtime_error{done.error};
  std::cout << done.generation << "\n";
}

// spoil() makes a generation current whose header is out of bounds, in a slot of its own.
void spoil(const node_config& node) {
  auto segment = must(publish::config_segment::attach_file(node.config_segment_path()));
  const abi::generation_word now{segment.control().current.load()};
  const unsigned slot = (now.slot() + 1) % abi::config_slots;
  auto* header = reinterpret_cast<abi::generation_header*>(segment.data() + segment.layout().slots +
                                                           slot * segment.layout().slot_bytes);
  header->service_count = 0xffffffff;
  header->vip_mask = 12;
  const auto next = abi::generation_word::make(now.number() + 1, slot);
  abi::generation_writer<>::publish(segment.control().current, next);
  std::cout << next.number() << "\n";
}

void other_version(const node_config& node, std::uint32_t version) {
  const auto segment =
      must(publish::config_segment::create_file(node.config_segment_path(), limits_of(node)));
  reinterpret_cast<abi::segment_header*>(segment.data())->version = version;
}

template <std::size_t N>
std::string text_of(const std::array<char, N>& field) {
  return {field.data(), strnlen(field.data(), N)};
}

void show(const node_config& node) {
  std::string error;
  const auto seen = publish::observations::attach(node.observation_segment_path(), error);
  if (!seen) throw std::runtime_error{error};
  const auto& map = seen->map();
  const abi::dataplane_info& info = map.info();
  nlohmann::json out{{"pid", info.pid},
                     {"alive", seen->alive()},
                     {"instance", info.config_instance.read()},
                     {"bad_generations", info.bad_generations.read()},
                     {"heartbeat_ns", info.heartbeat_ns.read()},
                     {"flags", info.flags},
                     {"now_ns", abi::clock_ns(CLOCK_MONOTONIC)}};
  for (unsigned i = 0; i < info.port_count; ++i) {
    const abi::port_info& p = map.port(i);
    out["ports"].push_back({{"name", text_of(p.name)},
                            {"driver", text_of(p.driver)},
                            {"kernel_name", text_of(p.kernel_name)},
                            {"note", text_of(p.note)},
                            {"mtu", p.mtu},
                            {"mac", format_mac(p.mac)},
                            {"rx_queues", p.rx_queues},
                            {"tx_queues", p.tx_queues},
                            {"link_up", p.link_up.load()},
                            {"rx_packets", p.rx_packets.read()},
                            {"tx_packets", p.tx_packets.read()}});
  }
  for (unsigned w = 0; w < info.worker_count; ++w) {
    const abi::worker_block& block = map.worker(w);
    nlohmann::json worker{{"cpu", block.cpu},
                          {"phase", static_cast<unsigned>(block.phase.load())},
                          {"epoch", block.generation.epoch.load()},
                          {"heartbeat_ns", block.heartbeat_ns.read()},
                          {"placement", text_of(block.placement)},
                          {"connection_path", text_of(block.connection_path)},
                          {"port_mask", block.port_mask},
                          {"tracked", block.tracked4.read() + block.tracked6.read()},
                          {"capacity4", block.capacity4}};
    for (std::size_t c = 0; c < abi::counter_count; ++c)
      if (const std::uint64_t n = block.counters[c].read(); n != 0)
        worker["counters"][(abi::counter_infos[c].drop ? "drop_" : "") +
                           std::string{abi::counter_infos[c].name}] = n;
    out["workers"].push_back(worker);
  }
  std::cout << out << "\n";
}

int run(const std::vector<std::string>& args) {
  if (args.size() < 2) return 2;
  const node_config node = must(load_node_file(args[1]));
  if (args[0] == "publish" && args.size() == 3)
    publish_tables(node, args[2], false);
  else if (args[0] == "again" && args.size() == 3)
    publish_tables(node, args[2], true);
  else if (args[0] == "spoil")
    spoil(node);
  else if (args[0] == "version" && args.size() == 3)
    other_version(node, static_cast<std::uint32_t>(std::stoul(args[2])));
  else if (args[0] == "show")
    show(node);
  else
    return 2;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "plane_tool: " << error.what() << "\n";
    return 1;
  }
}
