// SPDX-License-Identifier: Apache-2.0
#include "tests/end_to_end/rows_wire.hpp"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

constexpr auto patience = 3s;
constexpr int attempts = 5;
constexpr std::size_t enough_wrong = 10;

[[noreturn]] void failed(const std::string& what) {
  throw std::system_error{errno, std::generic_category(), what};
}

using counts = std::array<std::uint64_t, abi::counter_count>;

counts count_all(const publish::observations& counted) {
  counts all{};
  for (std::size_t i = 0; i < all.size(); ++i)
    if (ends(static_cast<abi::counter_id>(i)))
      all[i] = counted.sum(static_cast<abi::counter_id>(i));
  return all;
}

std::string difference(const counts& before, const counts& now) {
  std::string text;
  for (std::size_t i = 0; i < now.size(); ++i)
    if (now[i] != before[i])
      text += std::string{text.empty() ? "" : ", "} + std::string{abi::counter_infos[i].name} +
              " +" + std::to_string(now[i] - before[i]);
  return text.empty() ? "nothing" : text;
}

// seen: what has come after a packet was sent; by port.
struct seen {
  std::array<std::vector<bytes>, 2> peers, kernel;

  void take(const wires& w) {
    for (std::size_t i = 0; i < 2; ++i) {
      while (auto frame = w.peers[i].receive()) peers[i].push_back(std::move(*frame));
      while (auto frame = w.kernel[i].receive()) kernel[i].push_back(std::move(*frame));
    }
  }
  [[nodiscard]] std::size_t total() const {
    return peers[0].size() + peers[1].size() + kernel[0].size() + kernel[1].size();
  }
  [[nodiscard]] std::string text() const {
    std::string all;
    for (std::size_t i = 0; i < 2; ++i) {
      for (const bytes& b : peers[i]) all += "\nby port " + std::to_string(i) + ":\n" + hex(b);
      for (const bytes& b : kernel[i])
        all += "\nto the kernel of port " + std::to_string(i) + ":\n" + hex(b);
    }
    return all.empty() ? "\nno frame" : all;
  }
};

// wanted() is what there must be in the end.
seen wanted_frames(const live_row& r) {
  seen s;
  if (r.end == live_end::sent) s.peers[r.out_port].push_back(r.out);
  if (r.end == live_end::kernel) s.kernel[r.of->in_port].push_back(r.out);
  return s;
}

// one() puts one row through; empty: all is right.
std::string one(const wires& w, const publish::observations& counted, const live_row& r) {
  const seen wanted = wanted_frames(r);
  for (int attempt = 1;; ++attempt) {
    seen got;
    got.take(w);
    if (got.total() != 0) return "unexpected before it was sent:" + got.text();
    const counts before = count_all(counted);
    counts expected = before;
    if (r.end != live_end::kernel) ++expected[static_cast<std::size_t>(r.counter)];
    w.peers[r.of->in_port].send(r.of->in);
    const auto deadline = clock::now() + patience;
    counts now = before;
    while (clock::now() < deadline) {
      got.take(w);
      now = count_all(counted);
      if (got.total() >= wanted.total() && now == expected) break;
      if (r.end != live_end::kernel && got.kernel[r.of->in_port].size() == 1) break;
      std::this_thread::sleep_for(20us);
    }
    if (now == expected && got.peers == wanted.peers && got.kernel == wanted.kernel) return {};
    // What the kernel may have it gets when the worker's heartbeat is older than 100 ms: on a
    // machine with more to do than this, the worker may be late.
    const bool late = r.end != live_end::kernel && now == before && got.total() == 1 &&
                      got.kernel[r.of->in_port] == std::vector<bytes>{r.of->in};
    if (late && attempt < attempts) {
      std::this_thread::sleep_for(100ms);
      continue;
    }
    return "counted: " + difference(before, now) + ", expected: " + difference(before, expected) +
           "; came:" + got.text() + "\nexpected:" + wanted.text() + "\nsent:\n" + hex(r.of->in);
  }
}

}  // namespace

wire::wire(const std::string& interface) : fd_{::socket(AF_PACKET, SOCK_RAW, htons(0x0003))} {
  if (fd_ < 0) failed("packet socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(0x0003);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  const int on = 1;
  if (address.sll_ifindex == 0 ||
      ::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::setsockopt(fd_, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) != 0)
    failed(interface);
}

wire::~wire() {
  if (fd_ >= 0) ::close(fd_);
}

void wire::send(const bytes& frame) const {
  if (::send(fd_, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size()))
    failed("sending " + std::to_string(frame.size()) + " bytes");
}

std::optional<bytes> wire::receive() const {
  for (;;) {
    bytes frame(65536);
    sockaddr_ll from{};
    iovec into{frame.data(), frame.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control{};
    msghdr message{&from, sizeof from, &into, 1, control.data(), control.size(), 0};
    const ssize_t n = ::recvmsg(fd_, &message, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
    if (n < 0) failed("receiving");
    if (from.sll_pkttype == PACKET_OUTGOING) continue;  // sent by the kernel
    frame.resize(static_cast<std::size_t>(n));
    // The kernel has taken the outer VLAN tag off.
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) continue;
      tpacket_auxdata extra{};
      std::memcpy(&extra, CMSG_DATA(c), sizeof extra);
      if ((extra.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
      bytes tag;
      put16(tag, (extra.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? extra.tp_vlan_tpid : 0x8100u);
      put16(tag, extra.tp_vlan_tci);
      frame.insert(frame.begin() + 12, tag.begin(), tag.end());
    }
    return frame;
  }
}

std::vector<std::string> run_over(const wires& w, const publish::observations& counted,
                                  const std::vector<live_row>& rows) {
  std::vector<std::string> wrong;
  for (const live_row& r : rows) {
    if (const std::string what = one(w, counted, r); !what.empty())
      wrong.push_back(r.of->what + ": " + what);
    if (wrong.size() == enough_wrong) return wrong;
  }
  // Nothing may come behind the last one.
  std::this_thread::sleep_for(50ms);
  seen rest;
  rest.take(w);
  if (rest.total() != 0) wrong.push_back("at the end there came:" + rest.text());
  return wrong;
}

}  // namespace sluice::test
