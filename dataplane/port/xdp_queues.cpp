// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xdp_queues.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>

namespace sluice {

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

}  // namespace sluice
