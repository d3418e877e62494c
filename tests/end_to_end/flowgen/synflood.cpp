// SPDX-License-Identifier: Apache-2.0
// synflood: SYNs from spoofed sources, as fast as a packet socket takes them. For scenarios, in
// namespaces: the sources are those set aside for benchmarks (198.18.0.0/15, RFC 2544), every one
// of 8 million (source, port) pairs once before the first comes again.
//
//   synflood --interface eth0 --to-mac MAC --target 198.51.100.10:80 --seconds 5
//
// Prints the number of frames sent.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <CLI/CLI.hpp>

namespace {

constexpr std::size_t frame_size = 14 + 20 + 20;
constexpr unsigned batch = 64;

void put16(std::uint8_t* at, unsigned v) {
  at[0] = static_cast<std::uint8_t>(v >> 8);
  at[1] = static_cast<std::uint8_t>(v);
}
void put32(std::uint8_t* at, std::uint32_t v) {
  put16(at, v >> 16);
  put16(at + 2, v & 0xffff);
}
std::uint32_t sum(const std::uint8_t* at, std::size_t n) {
  std::uint32_t s = 0;
  for (std::size_t i = 0; i < n; i += 2) s += static_cast<std::uint32_t>(at[i]) << 8 | at[i + 1];
  return s;
}
unsigned checksum(std::uint32_t s) {
  while (s > 0xffff) s = (s & 0xffff) + (s >> 16);
  return ~s & 0xffff;
}

// write_syn() writes the n-th SYN.
void write_syn(std::uint8_t* f, std::uint32_t n) {
  // A permutation of 23 bits: 131072 sources, 64 ports each.
  const std::uint32_t x = (n * 0x6cd9b5u + 0x2f1u) & 0x7fffff;
  std::uint8_t* ip = f + 14;
  std::uint8_t* tcp = ip + 20;
  put32(ip + 12, 0xc6120000 | x >> 6);
  put16(ip + 4, n & 0xffff);
  put16(ip + 10, 0);
  put16(ip + 10, checksum(sum(ip, 20)));
  put16(tcp, 1024 + (x & 63) * 997);
  put32(tcp + 4, n * 2654435761u);
  put16(tcp + 16, 0);
  put16(tcp + 16, checksum(sum(ip + 12, 8) + 6 + 20 + sum(tcp, 20)));
}

void write_fixed(std::uint8_t* f, const std::uint8_t* to, const std::uint8_t* from,
                 std::uint32_t target, unsigned port) {
  std::memcpy(f, to, 6);
  std::memcpy(f + 6, from, 6);
  put16(f + 12, ETHERTYPE_IP);
  f[14] = 0x45;
  put16(f + 16, 40);
  put16(f + 20, 0x4000);
  f[22] = 64;
  f[23] = 6;
  put32(f + 30, target);
  put16(f + 36, port);
  f[46] = 5 << 4;
  f[47] = 0x02;
  put16(f + 48, 64240);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"SYNs from spoofed sources"};
  std::string interface;
  std::string to_text;
  std::string target_text;
  double seconds = 1;
  app.add_option("--interface", interface, "where to send")->required();
  app.add_option("--to-mac", to_text, "destination MAC address")->required();
  app.add_option("--target", target_text, "ADDRESS:PORT, IPv4")->required();
  app.add_option("--seconds", seconds, "for how long");
  CLI11_PARSE(app, argc, argv);

  std::array<unsigned, 6> mac{};
  const std::size_t colon = target_text.rfind(':');
  in_addr target{};
  if (std::sscanf(to_text.c_str(), "%x:%x:%x:%x:%x:%x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
                  &mac[5]) != 6 ||
      colon == std::string::npos ||
      ::inet_pton(AF_INET, target_text.substr(0, colon).c_str(), &target) != 1) {
    std::fputs("synflood: bad --to-mac or --target\n", stderr);
    return 2;
  }
  const auto port =
      static_cast<unsigned>(std::strtoul(target_text.c_str() + colon + 1, nullptr, 10));
  std::array<std::uint8_t, 6> to{};
  for (std::size_t i = 0; i < 6; ++i) to[i] = static_cast<std::uint8_t>(mac[i]);

  const int fd = ::socket(AF_PACKET, SOCK_RAW, 0);  // protocol 0: receives nothing
  if (fd < 0) {
    std::perror("synflood: socket");
    return 1;
  }
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (::ioctl(fd, SIOCGIFHWADDR, &request) != 0 ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    std::perror(("synflood: " + interface).c_str());
    return 1;
  }
  std::array<std::uint8_t, 6> from{};
  std::memcpy(from.data(), request.ifr_hwaddr.sa_data, 6);

  std::array<std::array<std::uint8_t, frame_size>, batch> frames{};
  std::array<iovec, batch> vectors{};
  std::array<mmsghdr, batch> messages{};
  for (unsigned i = 0; i < batch; ++i) {
    write_fixed(frames[i].data(), to.data(), from.data(), ntohl(target.s_addr), port);
    vectors[i] = {frames[i].data(), frame_size};
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const auto end =
      std::chrono::steady_clock::now() +
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>{seconds});
  std::uint64_t sent = 0;
  std::uint32_t n = 0;
  while (std::chrono::steady_clock::now() < end) {
    for (unsigned i = 0; i < batch; ++i) write_syn(frames[i].data(), n++);
    const int done = ::sendmmsg(fd, messages.data(), batch, 0);
    if (done > 0) {
      sent += static_cast<std::uint64_t>(done);
    } else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) {
      std::perror("synflood: send");
      return 1;
    }
  }
  ::close(fd);
  std::printf("%llu\n", static_cast<unsigned long long>(sent));
  return 0;
}
