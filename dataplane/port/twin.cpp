// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/twin.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "dataplane/port/kernel_interface.hpp"

namespace sluice {
namespace {

constexpr unsigned burst = 64;
// A frame of the largest MTU, 64 KiB, in the smallest buffers.
constexpr std::size_t most_segments = 40;

// The pump looks this often while packets come, and when none have come for a while: a
// worker cannot wake it without a system call. The first packet of a conversation waits a
// millisecond at most; a frame from the kernel wakes the pump at once.
constexpr long busy_pause_ns = 50'000;
constexpr long idle_pause_ns = 1'000'000;
constexpr unsigned passes_until_idle = 200;

void copy_name(ifreq& request, const std::string& name) noexcept {
  std::memcpy(request.ifr_name, name.c_str(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
}

std::string reason(const char* what) {
  return std::string{what} + ": " + std::strerror(errno);
}

// set_up() gives the interface MAC and MTU, and sets it up; "" or what failed. What is so
// already is left alone: a new MAC address makes the kernel forget its neighbours.
std::string set_up(const std::string& name, const mac_address& mac, std::uint16_t mtu) {
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return reason("socket");
  std::string failed;
  const auto set = [&](unsigned long what, ifreq& request, const char* text) {
    copy_name(request, name);
    if (failed.empty() && ::ioctl(socket, what, &request) != 0) failed = reason(text);
  };
  ifreq address{};
  set(SIOCGIFHWADDR, address, "reading its MAC address");
  if (std::memcmp(address.ifr_hwaddr.sa_data, mac.data(), mac.size()) != 0) {
    address.ifr_hwaddr.sa_family = 1;  // ARPHRD_ETHER
    std::memcpy(address.ifr_hwaddr.sa_data, mac.data(), mac.size());
    set(SIOCSIFHWADDR, address, "setting its MAC address");
  }
  ifreq length{};
  length.ifr_mtu = mtu;
  set(SIOCSIFMTU, length, "setting its MTU");
  ifreq flags{};
  set(SIOCGIFFLAGS, flags, "reading its state");
  flags.ifr_flags = static_cast<short>(flags.ifr_flags | IFF_UP);
  set(SIOCSIFFLAGS, flags, "setting it up");
  ::close(socket);
  return failed;
}

}  // namespace

tl::expected<std::unique_ptr<twin>, std::string> twin::make(const std::string& name,
                                                            const mac_address& mac,
                                                            std::uint16_t mtu, rte_mempool* pool) {
  const auto fail = [&name](const std::string& why) {
    return tl::unexpected{"twin " + name + ": " + why};
  };
  if (name.size() >= IFNAMSIZ) return fail("the name is too long");
  std::unique_ptr<twin> made{new twin};
  made->name_ = name;
  made->pool_ = pool;
  made->longest_ = std::uint32_t{mtu} + 14 + 2 * 4;
  const auto taken = [&](const char* by) {
    return fail(std::string{"the kernel has an interface of that name already, "} + by +
                "; ip link delete " + name + ", or give the port another name");
  };
  if (const auto there = read_interface(name); there && there->driver != "tun")
    return taken("which is no TAP");
  made->fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (made->fd_ < 0) return fail(reason("/dev/net/tun"));
  ifreq request{};
  copy_name(request, name);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI);
  if (::ioctl(made->fd_, TUNSETIFF, &request) != 0) {
    if (errno == EBUSY) return taken("which another process uses");
    if (errno == EINVAL) return taken("of another kind");
    return fail(reason("cannot be made"));
  }
  // With its addresses and routes it outlives us, for the next start to take up.
  if (::ioctl(made->fd_, TUNSETPERSIST, 1) != 0) return fail(reason("cannot be kept"));
  if (const std::string failed = set_up(name, mac, mtu); !failed.empty()) return fail(failed);
  made->kernel_index_ = ::if_nametoindex(name.c_str());
  const auto ring = [&name](const char* direction, unsigned flags) {
    return rte_ring_create((direction + name).c_str(), twin_ring_size, SOCKET_ID_ANY, flags);
  };
  made->to_kernel_ = ring("to ", RING_F_SC_DEQ);
  made->from_kernel_ = ring("from ", RING_F_SP_ENQ | RING_F_SC_DEQ);
  if (made->to_kernel_ == nullptr || made->from_kernel_ == nullptr)
    return fail(std::string{"no memory for its rings: "} + rte_strerror(rte_errno));
  return made;
}

twin::~twin() {
  for (rte_ring* ring : {to_kernel_, from_kernel_}) {
    void* waiting = nullptr;
    while (ring != nullptr && rte_ring_dequeue(ring, &waiting) == 0)
      rte_pktmbuf_free(static_cast<rte_mbuf*>(waiting));
    rte_ring_free(ring);
  }
  rte_pktmbuf_free(spare_);
  if (fd_ >= 0) ::close(fd_);
}

unsigned twin::move() noexcept {
  std::array<void*, burst> some{};
  const unsigned out = rte_ring_dequeue_burst(to_kernel_, some.data(), burst, nullptr);
  std::uint64_t refused = 0;
  for (unsigned i = 0; i < out; ++i) {
    auto* const m = static_cast<rte_mbuf*>(some[i]);
    refused += write(*m) ? 0 : 1;
    rte_pktmbuf_free(m);
  }
  if (refused != 0)
    refused_.store(refused_.load(std::memory_order_relaxed) + refused, std::memory_order_relaxed);
  // What the ring has no room for stays with the kernel, whose queue drops by its own rules.
  const unsigned room = std::min(rte_ring_free_count(from_kernel_), burst);
  unsigned in = 0;
  for (; in < room; ++in) {
    rte_mbuf* const m = read();
    if (m == nullptr) break;
    some[in] = m;
  }
  if (in != 0) rte_ring_enqueue_bulk(from_kernel_, some.data(), in, nullptr);
  return out + in;
}

bool twin::write(rte_mbuf& m) noexcept {
  std::array<iovec, most_segments> parts{};
  std::size_t n = 0;
  for (rte_mbuf* s = &m; s != nullptr && n < parts.size(); s = s->next)
    parts[n++] = {rte_pktmbuf_mtod(s, void*), s->data_len};
  return ::writev(fd_, parts.data(), static_cast<int>(n)) ==
         static_cast<ssize_t>(rte_pktmbuf_pkt_len(&m));
}

// read() returns the next frame of the kernel's, or null.
rte_mbuf* twin::read() noexcept {
  if (spare_ == nullptr) {
    rte_mbuf* last = nullptr;
    for (std::uint32_t room = 0; room < longest_;) {
      rte_mbuf* const m = rte_pktmbuf_alloc(pool_);
      if (m == nullptr) {
        rte_pktmbuf_free(spare_);
        spare_ = nullptr;
        return nullptr;
      }
      (last == nullptr ? spare_ : last->next) = m;
      last = m;
      room += rte_pktmbuf_tailroom(m);
    }
  }
  std::array<iovec, most_segments> parts{};
  std::size_t n = 0;
  for (rte_mbuf* s = spare_; s != nullptr && n < parts.size(); s = s->next)
    parts[n++] = {rte_pktmbuf_mtod(s, void*), rte_pktmbuf_tailroom(s)};
  const ssize_t got = ::readv(fd_, parts.data(), static_cast<int>(n));
  if (got <= 0) return nullptr;
  rte_mbuf* const frame = spare_;
  spare_ = nullptr;
  auto left = static_cast<std::uint32_t>(got);
  frame->pkt_len = left;
  frame->nb_segs = 0;
  rte_mbuf* segment = frame;
  for (;;) {
    const std::uint32_t here = std::min<std::uint32_t>(left, rte_pktmbuf_tailroom(segment));
    segment->data_len = static_cast<std::uint16_t>(here);
    left -= here;
    ++frame->nb_segs;
    if (left == 0 || segment->next == nullptr) break;
    segment = segment->next;
  }
  rte_pktmbuf_free(segment->next);
  segment->next = nullptr;
  return frame;
}

void twin::set_carrier(bool up) noexcept {
  if (up == carrier_) return;
  const int on = up ? 1 : 0;
  if (::ioctl(fd_, TUNSETCARRIER, &on) == 0) carrier_ = up;
}

twin_pump::twin_pump(std::vector<twin*> twins)
    : twins_{std::move(twins)}, thread_{[this] { run(); }} {
  pthread_setname_np(thread_.native_handle(), "sluice-twin");
}

twin_pump::~twin_pump() {
  stop_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void twin_pump::run() noexcept {
  std::vector<pollfd> wait;
  for (const twin* t : twins_) wait.push_back({t->descriptor(), POLLIN, 0});
  unsigned passes = 0;  // without a packet
  while (!stop_.load(std::memory_order_relaxed)) {
    unsigned moved = 0;
    for (twin* t : twins_) moved += t->move();
    passes = moved != 0 ? 0 : passes + 1;
    if (moved >= burst) continue;
    const timespec pause{0, passes < passes_until_idle ? busy_pause_ns : idle_pause_ns};
    if (::ppoll(wait.data(), wait.size(), &pause, nullptr) <= 0) continue;
    for (std::size_t i = 0; i < wait.size(); ++i)
      if ((wait[i].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
        // Somebody has deleted the interface. It would be "ready" for ever.
        spdlog::error("twin {}: its interface is gone; a restart of the data plane makes it anew",
                      twins_[i]->name());
        wait[i].fd = -1;
      }
  }
}

}  // namespace sluice
