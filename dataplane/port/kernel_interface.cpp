// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/kernel_interface.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace sluice {
namespace {

namespace fs = std::filesystem;

std::optional<int> number_in(const std::string& path) {
  std::ifstream file{path};
  int value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

class control_socket {
 public:
  control_socket() noexcept : fd_{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)} {}
  control_socket(const control_socket&) = delete;
  control_socket& operator=(const control_socket&) = delete;
  ~control_socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool ask(unsigned long what, ifreq& request) const noexcept {
    return fd_ >= 0 && ::ioctl(fd_, what, &request) == 0;
  }

 private:
  int fd_;
};

}  // namespace

std::optional<kernel_interface> read_interface(const std::string& name) {
  kernel_interface out;
  out.name = name;
  out.index = ::if_nametoindex(name.c_str());
  if (out.index == 0) return std::nullopt;
  const control_socket socket;
  const auto request = [&name] {
    ifreq r{};
    std::memcpy(r.ifr_name, name.c_str(), std::min(name.size(), sizeof r.ifr_name - 1));
    return r;
  };
  if (ifreq r = request(); socket.ask(SIOCGIFHWADDR, r))
    std::memcpy(out.mac.data(), r.ifr_hwaddr.sa_data, out.mac.size());
  if (ifreq r = request(); socket.ask(SIOCGIFMTU, r))
    out.mtu = static_cast<std::uint16_t>(std::clamp(r.ifr_mtu, 0, 0xffff));
  if (ifreq r = request(); socket.ask(SIOCGIFFLAGS, r)) out.up = (r.ifr_flags & IFF_UP) != 0;
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  ifreq r = request();
  r.ifr_data = reinterpret_cast<char*>(&driver);
  if (socket.ask(SIOCETHTOOL, r)) out.driver = driver.driver;
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  r = request();
  r.ifr_data = reinterpret_cast<char*>(&channels);
  if (socket.ask(SIOCETHTOOL, r)) {
    out.combined = channels.max_combined > 0;
    out.rx_queues = std::max(1u, channels.combined_count + channels.rx_count);
  }
  // sysfs, unlike the ioctls, may show another namespace's interface of that name; it is
  // believed only if the index fits.
  const std::string directory = "/sys/class/net/" + name;
  if (number_in(directory + "/ifindex") == static_cast<int>(out.index))
    out.numa_node = number_in(directory + "/device/numa_node").value_or(-1);
  return out;
}

std::optional<kernel_interface> read_interface(unsigned index) {
  std::array<char, IF_NAMESIZE> name{};
  if (index == 0 || ::if_indextoname(index, name.data()) == nullptr) return std::nullopt;
  return read_interface(std::string{name.data()});
}

bool interface_is_running(unsigned index) {
  ifreq r{};
  if (::if_indextoname(index, r.ifr_name) == nullptr) return false;
  return control_socket{}.ask(SIOCGIFFLAGS, r) && (r.ifr_flags & IFF_UP) != 0 &&
         (r.ifr_flags & IFF_RUNNING) != 0;
}

std::optional<int> pci_numa_node(const std::string& address) {
  const std::string directory = "/sys/bus/pci/devices/" + address;
  std::error_code error;
  if (!fs::exists(directory, error)) return std::nullopt;
  return number_in(directory + "/numa_node").value_or(-1);
}

std::string pci_driver(const std::string& address) {
  std::error_code error;
  return fs::read_symlink("/sys/bus/pci/devices/" + address + "/driver", error).filename();
}

}  // namespace sluice
