// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xdp_queues.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "dataplane/abi/bpf_abi.h"

namespace sluice {
namespace {

tl::unexpected<std::string> failed(const std::string& interface, const char* what, int error) {
  return tl::unexpected{interface + ": " + what + ": " + std::strerror(error)};
}

// open_xsks_map() returns a descriptor of the map, or -1 with errno.
int open_xsks_map(std::uint32_t program_id) {
  const int program = bpf_prog_get_fd_by_id(program_id);
  if (program < 0) return -1;
  std::array<std::uint32_t, 16> ids{};
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(ids.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  std::uint32_t size = sizeof info;
  const int error = bpf_obj_get_info_by_fd(program, &info, &size);
  ::close(program);
  if (error != 0) return -1;
  for (std::size_t i = 0; i < std::min<std::size_t>(info.nr_map_ids, ids.size()); ++i) {
    const int map = bpf_map_get_fd_by_id(ids[i]);
    if (map < 0) continue;
    bpf_map_info about{};
    std::uint32_t about_size = sizeof about;
    if (bpf_obj_get_info_by_fd(map, &about, &about_size) == 0 &&
        std::string_view{about.name} == SLUICE_XSKS_MAP)
      return map;
    ::close(map);
  }
  errno = ENOENT;
  return -1;
}

}  // namespace

std::vector<int> xdp_sockets() {
  std::vector<int> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd", error}) {
    const std::string name = entry.path().filename();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    int domain = 0;
    socklen_t size = sizeof domain;
    if (fd >= 0 && ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_XDP)
      out.push_back(fd);
  }
  std::ranges::sort(out);
  return out;
}

tl::expected<void, std::string> enter_xdp_sockets(const std::string& interface,
                                                  const std::vector<int>& sockets) {
  std::uint32_t program = 0;
  const auto index = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (const int error = bpf_xdp_query_id(index, 0, &program); error != 0 || program == 0)
    return failed(interface, "asking for the XDP program attached", error != 0 ? -error : ENOENT);
  const int map = open_xsks_map(program);
  if (map < 0) return failed(interface, "opening the program's " SLUICE_XSKS_MAP, errno);
  int error = 0;
  for (std::uint32_t queue = 0; error == 0 && queue < sockets.size(); ++queue)
    if (bpf_map_update_elem(map, &queue, &sockets[queue], 0) != 0) error = errno;
  ::close(map);
  if (error != 0) return failed(interface, "entering a socket into " SLUICE_XSKS_MAP, error);
  return {};
}

}  // namespace sluice
