// SPDX-License-Identifier: Apache-2.0
// The two planes' code around the steering program, one step per run, for test_steer.py:
//   steer_tool set IF ADDRESS PROTOCOL FIRST LAST ...   controlplane/bpf_loader
//   steer_tool counters IF                              as JSON
//   steer_tool take-over IF FILE                        dataplane/port/xdp_attach; the set to FILE
//   steer_tool restore IF FILE
//   steer_tool detach IF
// Exit code 1 and the error's text when it is refused.
#include <arpa/inet.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "controlplane/bpf_loader/steer_maps.hpp"
#include "dataplane/port/xdp_attach.hpp"

namespace {

using namespace sluice;

ip_address to_address(const std::string& text) {
  ip_address a;
  std::array<std::uint8_t, 4> v4{};
  if (inet_pton(AF_INET, text.c_str(), v4.data()) == 1) return ip_address::v4(v4);
  if (inet_pton(AF_INET6, text.c_str(), a.bytes.data()) == 1) return a;
  throw std::invalid_argument{"no address: " + text};
}

template <typename Expected>
auto value_or_throw(Expected result) {
  if (!result) {
    if constexpr (std::is_same_v<typename Expected::error_type, std::string>)
      throw std::runtime_error{result.error()};
    else
      throw std::runtime_error{result.error().text};
  }
  if constexpr (!std::is_void_v<typename Expected::value_type>) return std::move(*result);
}

using entry = decltype(xdp_leftover::vips)::value_type;

void save(const std::vector<entry>& entries, const std::string& path) {
  std::ofstream file{path, std::ios::binary};
  for (const auto& [key, value] : entries) {
    file.write(reinterpret_cast<const char*>(&key), sizeof(key));
    file.write(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  if (!file.flush()) throw std::runtime_error{"writing " + path};
}

std::vector<entry> load(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  std::vector<entry> entries;
  for (entry e; file.read(reinterpret_cast<char*>(&e.first), sizeof(e.first)) &&
                file.read(reinterpret_cast<char*>(&e.second), sizeof(e.second));)
    entries.push_back(e);
  return entries;
}

void run(const std::vector<std::string>& arguments) {
  const std::string& command = arguments.at(0);
  const std::string& interface = arguments.at(1);
  const bpf_loader::steer_maps maps{interface};
  if (command == "set") {
    std::vector<bpf_loader::vip> vips;
    for (std::size_t i = 2; i < arguments.size(); i += 4)
      vips.push_back({to_address(arguments.at(i)),
                      arguments.at(i + 1) == "tcp" ? ip_proto::tcp : ip_proto::udp,
                      static_cast<std::uint16_t>(std::stoul(arguments.at(i + 2))),
                      static_cast<std::uint16_t>(std::stoul(arguments.at(i + 3)))});
    const auto update = value_or_throw(maps.set_vips(vips));
    std::printf("added %zu removed %zu\n", update.added, update.removed);
  } else if (command == "counters") {
    const auto c = value_or_throw(maps.counters());
    std::printf(
        "{\"redirected\": %llu, \"no_socket\": %llu, \"passed\": %llu, \"malformed\": %llu, "
        "\"forwarded\": %llu, \"pinned\": %llu, \"dropped\": %llu}\n",
        static_cast<unsigned long long>(c.redirected), static_cast<unsigned long long>(c.no_socket),
        static_cast<unsigned long long>(c.passed), static_cast<unsigned long long>(c.malformed),
        static_cast<unsigned long long>(c.forwarded), static_cast<unsigned long long>(c.pinned),
        static_cast<unsigned long long>(c.dropped));
  } else if (command == "take-over") {
    const auto leftover = value_or_throw(take_over_xdp(interface));
    save(leftover.vips, arguments.at(2));
    std::printf("found %d entries %zu\n", leftover.found, leftover.vips.size());
  } else if (command == "restore") {
    const xdp_leftover leftover{.found = true, .vips = load(arguments.at(2))};
    std::printf("restored %zu\n", value_or_throw(restore_vips(interface, leftover)));
  } else if (command == "detach") {
    value_or_throw(maps.detach());
  } else {
    throw std::invalid_argument{"unknown command " + command};
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run({argv + 1, argv + argc});
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steer_tool: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
