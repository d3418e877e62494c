// SPDX-License-Identifier: Apache-2.0
#include "controlplane/neighbour/interface_addresses.hpp"

#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace sluice::neighbour {
namespace {

constexpr std::size_t answer_size = 32768;
constexpr std::size_t question_size = 256;
constexpr std::uint32_t forever = 0xffffffff;

// found: the addresses of a dump.
struct found {
  unsigned index;
  std::set<ip_address> addresses;
};

int note_attribute(const nlattr* a, void* data) {
  auto** const table = static_cast<const nlattr**>(data);
  if (mnl_attr_type_valid(a, IFA_MAX) > 0) table[mnl_attr_get_type(a)] = a;
  return MNL_CB_OK;
}

int note_address(const nlmsghdr* message, void* data) {
  auto& to = *static_cast<found*>(data);
  if (mnl_nlmsg_get_payload_len(message) < sizeof(ifaddrmsg)) return MNL_CB_OK;
  const auto* header = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  const bool v4 = header->ifa_family == AF_INET;
  if (header->ifa_index != to.index || header->ifa_prefixlen != (v4 ? 32 : 128)) return MNL_CB_OK;
  std::array<const nlattr*, IFA_MAX + 1> attributes{};
  if (mnl_attr_parse(message, sizeof(ifaddrmsg), note_attribute, attributes.data()) < 0)
    return MNL_CB_OK;
  const nlattr* const at =
      attributes[IFA_LOCAL] != nullptr ? attributes[IFA_LOCAL] : attributes[IFA_ADDRESS];
  const std::size_t size = v4 ? 4 : 16;
  if (at == nullptr || mnl_attr_get_payload_len(at) != size) return MNL_CB_OK;
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), mnl_attr_get_payload(at), size);
  to.addresses.insert(v4 ? ip_address::v4({bytes[0], bytes[1], bytes[2], bytes[3]})
                         : ip_address::v6(bytes));
  return MNL_CB_OK;
}

std::string text_of(int error) {
  return std::generic_category().message(error);
}

}  // namespace

interface_addresses::interface_addresses(std::string interface) : interface_{std::move(interface)} {
  // Answers are there when send() returns; this only bounds what must not happen.
  const timeval limit{1, 0};
  if (::setsockopt(socket_.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
    throw std::system_error{errno, std::system_category(), "netlink receive timeout"};
}

tl::expected<std::set<ip_address>, std::string> interface_addresses::present() {
  found out{::if_nametoindex(interface_.c_str()), {}};
  if (out.index == 0) return tl::unexpected{interface_ + ": there is no such interface"};
  alignas(nlmsghdr) std::array<char, question_size> question{};
  nlmsghdr* const message = mnl_nlmsg_put_header(question.data());
  message->nlmsg_type = RTM_GETADDR;
  message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message->nlmsg_seq = 1;
  mnl_nlmsg_put_extra_header(message, sizeof(ifaddrmsg));
  const auto failed = [&] {
    return tl::unexpected{interface_ + ": its addresses are not known: " + text_of(errno)};
  };
  if (mnl_socket_sendto(socket_.get(), message, message->nlmsg_len) < 0) return failed();
  std::array<char, answer_size> answer;
  for (;;) {
    const auto n = mnl_socket_recvfrom(socket_.get(), answer.data(), answer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed();
    const int r = mnl_cb_run(answer.data(), static_cast<std::size_t>(n), 1,
                             mnl_socket_get_portid(socket_.get()), note_address, &out);
    if (r == MNL_CB_STOP) return std::move(out.addresses);
    if (r == MNL_CB_ERROR) return failed();
  }
}

std::string interface_addresses::change(const ip_address& a, int type, int flags, int harmless) {
  const unsigned index = ::if_nametoindex(interface_.c_str());
  if (index == 0) return interface_ + ": there is no such interface";
  alignas(nlmsghdr) std::array<char, question_size> question{};
  nlmsghdr* const message = mnl_nlmsg_put_header(question.data());
  message->nlmsg_type = static_cast<std::uint16_t>(type);
  message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  message->nlmsg_seq = 1;
  auto* const header =
      static_cast<ifaddrmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(ifaddrmsg)));
  const bool v4 = a.is_v4();
  header->ifa_family = v4 ? AF_INET : AF_INET6;
  header->ifa_prefixlen = v4 ? 32 : 128;
  header->ifa_scope = RT_SCOPE_UNIVERSE;
  header->ifa_index = index;
  header->ifa_flags = v4 ? 0 : IFA_F_NODAD;
  const std::size_t size = v4 ? 4 : 16;
  const std::uint8_t* const bytes = a.bytes.data() + (v4 ? 12 : 0);
  mnl_attr_put(message, IFA_LOCAL, size, bytes);
  mnl_attr_put(message, IFA_ADDRESS, size, bytes);
  if (!v4) {
    const ifa_cacheinfo life{0, forever, 0, 0};  // deprecated from the start
    mnl_attr_put(message, IFA_CACHEINFO, sizeof life, &life);
  }
  if (mnl_socket_sendto(socket_.get(), message, message->nlmsg_len) < 0) return text_of(errno);
  std::array<char, 8192> answer;
  for (;;) {
    const auto n = mnl_socket_recvfrom(socket_.get(), answer.data(), answer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return text_of(errno);
    const int r = mnl_cb_run(answer.data(), static_cast<std::size_t>(n), 1,
                             mnl_socket_get_portid(socket_.get()), nullptr, nullptr);
    if (r == MNL_CB_STOP) return {};
    if (r == MNL_CB_ERROR) return errno == harmless ? std::string{} : text_of(errno);
  }
}

std::string interface_addresses::add(const ip_address& a) {
  return change(a, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, EEXIST);
}

std::string interface_addresses::remove(const ip_address& a) {
  return change(a, RTM_DELADDR, 0, EADDRNOTAVAIL);
}

}  // namespace sluice::neighbour
