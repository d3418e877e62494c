// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/eal.hpp"

#include <fcntl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "dataplane/abi/fnv.hpp"

namespace sluice {
namespace {

std::string dpdk_directory;

}  // namespace

// FNV-1a of the path.
std::string runtime_prefix(const std::string& runtime_dir) {
  fnv1a hash;
  hash.add(std::string_view{runtime_dir});
  std::array<char, 17> text{};
  std::to_chars(text.data(), text.data() + 16, hash.value(), 16);
  return std::string{"sluice-"} + text.data();
}

std::vector<std::string> eal_arguments(const node_config& node,
                                       const placement::worker_plan& places,
                                       std::span<const device_plan> devices,
                                       const memory_plan& memory) {
  std::string lcores = "0@(" + placement::format_cpu_list(places.others) + ")";
  for (std::size_t i = 0; i < places.workers.size(); ++i)
    lcores += "," + std::to_string(i + 1) + "@" + std::to_string(places.workers[i].cpu);

  // No other DPDK process attaches to us, so nothing need be left in hugetlbfs when we are
  // killed. In our own runtime directory a short prefix does: a socket's path is limited. memif and
  // virtio-user pass their memory on as descriptors, which works with anonymous memory, too.
  std::vector<std::string> args{"sluice-dataplane", "--lcores=" + lcores,
                                memory.huge ? "--in-memory" : "--no-shconf", "--file-prefix=eal",
                                "--log-level=warning"};
  if (!memory.huge) args.emplace_back("--no-huge");
  if (memory.mib != 0) {
    args.emplace_back("-m");
    args.push_back(std::to_string(memory.mib));
  }
  bool pci = false;
  bool af_xdp = false;
  for (const device_plan& device : devices) {
    af_xdp |= device.parts.front().name.starts_with("net_af_xdp");
    if (device.config->kind != device_kind::pci) continue;
    pci = true;
    for (const device_part& part : device.parts) {
      args.emplace_back("-a");
      args.push_back(part.arguments);
    }
  }
  if (!pci) args.emplace_back("--no-pci");
  // AF_XDP registers a pool as one area, which it is only if addresses are virtual ones.
  // PCI devices alone: EAL knows best.
  if (!pci || af_xdp) args.emplace_back("--iova-mode=va");
  args.insert(args.end(), node.dataplane.eal_args.begin(), node.dataplane.eal_args.end());
  return args;
}

tl::expected<void, std::string> start_eal(const std::vector<std::string>& arguments,
                                          const std::string& runtime_dir) {
  ::setenv("RUNTIME_DIRECTORY", runtime_dir.c_str(), 1);  // EAL's directory is below it
  dpdk_directory = runtime_dir + "/dpdk";
  // EAL changes the vector and keeps pointers into the strings.
  static std::vector<std::string> kept;
  static std::vector<char*> pointers;
  kept = arguments;
  pointers.clear();
  for (std::string& s : kept) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  // EAL answers a wrong argument with a hundred lines of usage on stdout; what is wrong it
  // says on stderr.
  std::fflush(stdout);
  const int out = ::dup(STDOUT_FILENO);
  if (const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC); null >= 0) {
    ::dup2(null, STDOUT_FILENO);
    ::close(null);
  }
  const int started = rte_eal_init(static_cast<int>(kept.size()), pointers.data());
  std::fflush(stdout);
  if (out >= 0) {
    ::dup2(out, STDOUT_FILENO);
    ::close(out);
  }
  if (started >= 0) return {};
  std::string line;
  for (const std::string& s : arguments) line += (line.empty() ? "" : " ") + s;
  return tl::unexpected{std::string{"DPDK does not start: "} + rte_strerror(rte_errno) +
                        "; its own message is above; it was given: " + line};
}

void stop_eal() noexcept {
  rte_eal_cleanup();
  std::error_code error;
  std::filesystem::remove_all(dpdk_directory, error);
}

}  // namespace sluice
