// SPDX-License-Identifier: Apache-2.0
#include "controlplane/neighbour/veth_pair.hpp"

#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>
#include <system_error>

#include "controlplane/neighbour/kernel_tables.hpp"
#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::neighbour {
namespace {

constexpr std::size_t message_size = 1024;
constexpr std::size_t longest_alias = 255;

using message_buffer = std::array<char, message_size>;

std::string failed(const std::string& what, int error) {
  return what + ": " + std::generic_category().message(error);
}

template <class Header>
Header* start(message_buffer& buffer, nlmsghdr*& message, int type, int flags) {
  buffer.fill(0);
  message = mnl_nlmsg_put_header(buffer.data());
  message->nlmsg_type = static_cast<std::uint16_t>(type);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  return static_cast<Header*>(mnl_nlmsg_put_extra_header(message, sizeof(Header)));
}

// transact() sends a request; 0, or the errno that the kernel answers.
int transact(netlink_socket& socket, nlmsghdr* message) {
  static constexpr std::uint32_t sequence = 1;  // a socket has one request at a time
  message->nlmsg_seq = sequence;
  if (mnl_socket_sendto(socket.get(), message, message->nlmsg_len) < 0) return errno;
  std::array<char, 8192> answer;
  for (;;) {
    const auto n = mnl_socket_recvfrom(socket.get(), answer.data(), answer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    const int r = mnl_cb_run(answer.data(), static_cast<std::size_t>(n), sequence,
                             mnl_socket_get_portid(socket.get()), nullptr, nullptr);
    if (r == MNL_CB_STOP) return 0;
    if (r == MNL_CB_ERROR) return errno;
  }
}

// new_mac() is locally administered. The pair is made with its addresses: one that the kernel
// chooses may be replaced by udev (MACAddressPolicy) after we have read it.
mac_address new_mac() {
  std::random_device random;
  mac_address mac{};
  for (auto& byte : mac) byte = static_cast<std::uint8_t>(random());
  mac[0] = static_cast<std::uint8_t>((mac[0] & 0xfc) | 2);
  return mac;
}

int create(netlink_socket& socket, const veth_settings& s) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  start<ifinfomsg>(buffer, message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  mnl_attr_put_strz(message, IFLA_IFNAME, s.near.c_str());
  mnl_attr_put_u32(message, IFLA_MTU, s.mtu);
  const mac_address near = new_mac(), far = new_mac();
  mnl_attr_put(message, IFLA_ADDRESS, near.size(), near.data());
  nlattr* const info = mnl_attr_nest_start(message, IFLA_LINKINFO);
  mnl_attr_put_strz(message, IFLA_INFO_KIND, "veth");
  nlattr* const data = mnl_attr_nest_start(message, IFLA_INFO_DATA);
  nlattr* const peer = mnl_attr_nest_start(message, VETH_INFO_PEER);
  mnl_nlmsg_put_extra_header(message, sizeof(ifinfomsg));
  mnl_attr_put_strz(message, IFLA_IFNAME, s.far.c_str());
  mnl_attr_put_u32(message, IFLA_MTU, s.mtu);
  mnl_attr_put(message, IFLA_ADDRESS, far.size(), far.data());
  mnl_attr_nest_end(message, peer);
  mnl_attr_nest_end(message, data);
  mnl_attr_nest_end(message, info);
  return transact(socket, message);
}

// set_alias() marks an interface as ours.
int set_alias(netlink_socket& socket, int index, const std::string& alias) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  start<ifinfomsg>(buffer, message, RTM_NEWLINK, 0)->ifi_index = index;
  mnl_attr_put_strz(message, IFLA_IFALIAS, alias.c_str());
  return transact(socket, message);
}

// set_quiet() lets the kernel make no IPv6 address of its own there. Where there is no IPv6,
// it fails, and nothing is lost.
int set_quiet(netlink_socket& socket, int index) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  start<ifinfomsg>(buffer, message, RTM_NEWLINK, 0)->ifi_index = index;
  nlattr* const families = mnl_attr_nest_start(message, IFLA_AF_SPEC);
  nlattr* const inet6 = mnl_attr_nest_start(message, AF_INET6);
  mnl_attr_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
  mnl_attr_nest_end(message, inet6);
  mnl_attr_nest_end(message, families);
  return transact(socket, message);
}

int set_up(netlink_socket& socket, int index) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  auto* header = start<ifinfomsg>(buffer, message, RTM_NEWLINK, 0);
  header->ifi_index = index;
  header->ifi_flags = header->ifi_change = IFF_UP | IFF_NOARP;
  return transact(socket, message);
}

int remove(netlink_socket& socket, int index) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  start<ifinfomsg>(buffer, message, RTM_DELLINK, 0)->ifi_index = index;
  return transact(socket, message);
}

int add_address(netlink_socket& socket, int index, const ip_address& local,
                const ip_address& peer) {
  alignas(nlmsghdr) message_buffer buffer;
  nlmsghdr* message;
  auto* header = start<ifaddrmsg>(buffer, message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  const bool v4 = local.is_v4();
  const auto put = [&](std::uint16_t type, const ip_address& a) {
    mnl_attr_put(message, type, v4 ? 4 : 16, a.bytes.data() + (v4 ? 12 : 0));
  };
  header->ifa_family = v4 ? AF_INET : AF_INET6;
  header->ifa_prefixlen = v4 ? 32 : 64;
  header->ifa_scope = RT_SCOPE_LINK;
  header->ifa_index = static_cast<std::uint32_t>(index);
  header->ifa_flags = v4 ? 0 : IFA_F_NODAD;
  put(IFA_LOCAL, local);
  put(IFA_ADDRESS, peer);
  return transact(socket, message);
}

// A socket for ioctl().
class control_socket {
 public:
  int call(unsigned long what, ifreq& request) const {
    return ::ioctl(socket_.get(), what, &request) == 0 ? 0 : errno;
  }

 private:
  file_descriptor socket_{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
};

ifreq request_for(const std::string& name) {
  ifreq r{};
  name.copy(r.ifr_name, sizeof r.ifr_name - 1);
  return r;
}

// fill_in_checksums() has TCP's made before the packet leaves the near end: the program at
// the far end may then move the packet into a tunnel, which no NIC need understand.
int fill_in_checksums(const control_socket& control, const std::string& name) {
  ethtool_value off{ETHTOOL_STXCSUM, 0};
  ifreq r = request_for(name);
  r.ifr_data = reinterpret_cast<char*>(&off);
  return control.call(SIOCETHTOOL, r);
}

std::string alias_of(const std::string& name) {
  std::ifstream file{"/sys/class/net/" + name + "/ifalias"};
  std::string line;
  std::getline(file, line);
  return line;
}

// remove_old() makes room for a name; an error when what has it is not ours.
std::string remove_old(netlink_socket& socket, const std::string& name, const std::string& alias) {
  const unsigned index = ::if_nametoindex(name.c_str());
  if (index == 0) return {};
  if (alias_of(name) != alias) return "interface " + name + " is there and is not ours";
  const int error = remove(socket, static_cast<int>(index));
  return error == 0 || error == ENODEV ? std::string{} : failed("removing " + name, error);
}

// leads_to() tells whether the interface has an address and a route for that peer; no packet
// is sent.
bool leads_to(const std::string& interface, const sockaddr* to, socklen_t length) {
  const file_descriptor socket{::socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  return socket &&
         ::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, interface.c_str(),
                      static_cast<socklen_t>(interface.size() + 1)) == 0 &&
         ::connect(socket.get(), to, length) == 0;
}

bool leads_to4(const std::string& interface, const ip_address& peer) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(9);
  in.sin_addr.s_addr = peer.v4_raw().raw();
  return leads_to(interface, reinterpret_cast<const sockaddr*>(&in), sizeof in);
}

// Any of the /64 will do.
bool leads_to6(const std::string& interface, int index, const ip_address& local) {
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(9);
  in.sin6_scope_id = static_cast<std::uint32_t>(index);
  std::memcpy(&in.sin6_addr, local.bytes.data(), sizeof in.sin6_addr);
  in.sin6_addr.s6_addr[15] ^= 0xff;
  return leads_to(interface, reinterpret_cast<const sockaddr*>(&in), sizeof in);
}

bool is_up(const control_socket& control, const std::string& name) {
  ifreq r = request_for(name);
  return control.call(SIOCGIFFLAGS, r) == 0 && (r.ifr_flags & IFF_UP) != 0;
}

std::string configure(netlink_socket& socket, const veth_settings& s, veth_pair& pair) {
  const control_socket control;
  for (const int index : {pair.near_index, pair.far_index}) {
    set_quiet(socket, index);
    if (const int error = set_alias(socket, index, s.alias))
      return failed("naming the pair", error);
  }
  if (const int error = fill_in_checksums(control, s.near))
    return failed("checksums of " + s.near, error);
  ifreq r = request_for(s.near);
  if (const int error = control.call(SIOCGIFHWADDR, r)) return failed(s.near, error);
  std::memcpy(pair.near_mac.data(), r.ifr_hwaddr.sa_data, pair.near_mac.size());
  for (const int index : {pair.far_index, pair.near_index})
    if (const int error = set_up(socket, index)) return failed("setting the pair up", error);
  if (const int error = add_address(socket, pair.near_index, s.local4, s.peer4))
    return failed("address of " + s.near, error);
  // Switched off for interfaces to come, perhaps, but not altogether.
  std::ofstream{"/proc/sys/net/ipv6/conf/" + s.near + "/disable_ipv6"} << "0";
  pair.ipv6 = add_address(socket, pair.near_index, s.local6, s.local6) == 0;
  return {};
}

}  // namespace

tl::expected<veth_pair, std::string> make_veth_pair(const veth_settings& settings) {
  veth_settings s = settings;
  s.alias.resize(std::min(s.alias.size(), longest_alias));
  try {
    netlink_socket socket;
    if (auto error = remove_old(socket, s.near, s.alias); !error.empty())
      return tl::unexpected{std::move(error)};
    if (const int error = create(socket, s))
      return tl::unexpected{failed("a veth pair cannot be made", error)};
    veth_pair pair{static_cast<int>(::if_nametoindex(s.near.c_str())),
                   static_cast<int>(::if_nametoindex(s.far.c_str())),
                   {},
                   false};
    if (auto error = configure(socket, s, pair); !error.empty()) {
      remove(socket, pair.near_index);
      return tl::unexpected{std::move(error)};
    }
    return pair;
  } catch (const std::system_error& e) {
    return tl::unexpected{std::string{e.what()}};
  }
}

std::string fault_of_veth_pair(const veth_settings& s, const veth_pair& pair) {
  if (static_cast<int>(::if_nametoindex(s.near.c_str())) != pair.near_index ||
      static_cast<int>(::if_nametoindex(s.far.c_str())) != pair.far_index)
    return "gone";
  const control_socket control;
  if (!is_up(control, s.near) || !is_up(control, s.far)) return "down";
  ifreq r = request_for(s.near);
  if (control.call(SIOCGIFHWADDR, r) != 0 ||
      std::memcmp(pair.near_mac.data(), r.ifr_hwaddr.sa_data, pair.near_mac.size()) != 0)
    return "with another MAC address";
  if (!leads_to4(s.near, s.peer4) || (pair.ipv6 && !leads_to6(s.near, pair.near_index, s.local6)))
    return "without its addresses";
  return {};
}

std::string remove_veth_pair(const std::string& near, const std::string& alias) {
  try {
    netlink_socket socket;
    return remove_old(socket, near, alias.substr(0, longest_alias));
  } catch (const std::system_error& e) {
    return e.what();
  }
}

}  // namespace sluice::neighbour
