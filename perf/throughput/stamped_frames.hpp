// SPDX-License-Identifier: Apache-2.0
// What traffic sends, and how it knows again what comes back: the frames of flow_frames.hpp with
// a stamp in each. The stamp lies in fields that a balancer passes on: the TCP sequence number
// counts the flow's packets, the acknowledgement number names the trial, and the first 6 bytes of
// payload are the clock (TSC, 48 bits) at sending. A packet's size follows from flow and number.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "dataplane/abi/net_types.hpp"
#include "perf/common/flow_frames.hpp"

namespace sluice::perf {

inline constexpr std::uint64_t clock_mask = (std::uint64_t{1} << 48) - 1;

// fault: why a frame that came back is not what was to come.
enum class fault : std::uint8_t {
  none,
  late,
  frame,
  next_hop,
  outer,
  backend,
  inner,
  order,
  count_
};

inline constexpr std::array<std::string_view, static_cast<std::size_t>(fault::count_)> fault_names{
    "none", "late", "frame", "next_hop", "outer", "backend", "inner", "order"};

enum class way : std::uint8_t { io, dsr_l2, ipip };

struct expectation {
  way through{way::io};
  std::array<std::uint8_t, 6> next_hop{2, 0, 0, 0, 0, 0};  // destination of what comes back
  ip_address encap_source{};                               // of the outer header
  ip_address first_backend{};                              // the others follow, service by service
  std::uint32_t backends{1};                               // of each service
};

// stamp: of a frame that is one of ours.
struct stamp {
  std::uint32_t flow;
  std::uint32_t number;
  std::uint32_t trial;
  std::uint32_t backend;  // in the row of all, from 1; 0: none is named
  std::uint64_t clock;
};

class stamped_frames {
 public:
  // `payloads` are the sizes' patterns, in turn: bytes behind the TCP header, each at least 6.
  stamped_frames(bool v6, std::uint32_t services, const std::vector<std::uint16_t>& payloads,
                 const expectation& e)
      : expected_{e}, v6_{v6}, header_{v6 ? 40u : 20u} {
    for (const std::uint16_t payload : payloads)
      sizes_.emplace_back(flow_frames::shape{.v6 = v6, .services = services, .payload = payload});
  }

  // write() writes a frame and returns its length.
  std::uint32_t write(std::uint8_t* to, std::uint32_t flow, std::uint32_t number,
                      std::uint32_t trial, std::uint64_t clock, std::uint8_t flags) const noexcept {
    const flow_frames& frames = size_of(flow, number);
    frames.write(to, flow, flags);
    std::uint8_t* const tcp = to + 14 + header_;
    std::memcpy(tcp + 4, &number, 4);
    std::memcpy(tcp + 8, &trial, 4);
    std::memcpy(tcp + 20, &clock, 6);
    return frames.length();
  }

  // flow_of() returns the flow that a frame claims, unchecked; 0 if it is too short.
  [[nodiscard]] std::uint32_t flow_of(const std::uint8_t* frame,
                                      std::uint32_t length) const noexcept {
    const unsigned ip = inner_at();
    if (length < ip + header_ + 20) return 0;
    if (!v6_) return (load32(frame + ip + 12) & 0xffffff) | std::uint32_t{frame[ip + 21]} << 24;
    std::uint32_t flow;
    std::memcpy(&flow, frame + ip + 20, 4);
    return flow;
  }

  // read() checks all that the frame must be, but its order; `s` is filled in if it is right.
  [[nodiscard]] fault read(const std::uint8_t* frame, std::uint32_t length, std::uint32_t trial,
                           stamp& s) const noexcept {
    const unsigned ip = inner_at();
    if (length < ip + header_ + 26) return fault::frame;
    if (frame[12] != (v6_ ? 0x86 : 0x08) || frame[13] != (v6_ ? 0xdd : 0x00)) return fault::frame;
    const std::uint8_t* const tcp = frame + ip + header_;
    std::memcpy(&s.trial, tcp + 8, 4);
    if (s.trial != trial) return s.trial >> 16 == trial >> 16 ? fault::late : fault::inner;
    if (std::memcmp(frame, expected_.next_hop.data(), 6) != 0) return fault::next_hop;
    s.flow = flow_of(frame, length);
    std::memcpy(&s.number, tcp + 4, 4);
    s.clock = 0;
    std::memcpy(&s.clock, tcp + 20, 6);
    const flow_frames& sent = size_of(s.flow, s.number);
    const std::uint32_t service = sent.service_of(s.flow);
    const bool tunnel = expected_.through == way::ipip;
    s.backend = 0;
    if (tunnel) {
      if (!is_outer(frame + 14, length - 14)) return fault::outer;
      const std::uint8_t* const destination = frame + 14 + (v6_ ? 24 : 16);
      if (v6_ && std::memcmp(destination, expected_.first_backend.bytes.data(), 12) != 0)
        return fault::backend;
      const std::uint32_t row =
          load32(destination + (v6_ ? 12 : 0)) - load32(last_word(expected_.first_backend));
      if (row / expected_.backends != service) return fault::backend;
      s.backend = row + 1;
    }
    // Ethernet's padding does not come out of a tunnel; the least payload needs none.
    if (length != sent.length() + (tunnel ? header_ : 0)) return fault::frame;
    if (!is_inner(frame + ip, sent.length() - 14, tunnel ? 63 : 64, service)) return fault::inner;
    if (tcp[0] != 0x80 || tcp[2] != 0 || tcp[3] != service_port) return fault::inner;
    return fault::none;
  }

 private:
  [[nodiscard]] unsigned inner_at() const noexcept {
    return expected_.through == way::ipip ? 14 + header_ : 14;
  }
  static const std::uint8_t* last_word(const ip_address& a) noexcept { return &a.bytes[12]; }
  static std::uint32_t load16(const std::uint8_t* at) noexcept {
    return std::uint32_t{at[0]} << 8 | at[1];
  }
  // is_outer() tells whether a tunnel's header is right, of a packet of `length` bytes.
  [[nodiscard]] bool is_outer(const std::uint8_t* ip, std::uint32_t length) const noexcept {
    if (v6_)
      return ip[0] >> 4 == 6 && ip[6] == 41 && load16(ip + 4) + 40 == length &&
             std::memcmp(ip + 8, expected_.encap_source.bytes.data(), 16) == 0;
    return ip[0] == 0x45 && ip[9] == 4 && load16(ip + 2) == length && sums_up(ip) &&
           std::memcmp(ip + 12, last_word(expected_.encap_source), 4) == 0;
  }
  // is_inner() tells whether what the client sent is still what it was, but for the hops.
  [[nodiscard]] bool is_inner(const std::uint8_t* ip, std::uint32_t length, unsigned hops,
                              std::uint32_t service) const noexcept {
    const ip_address to = vip(v6_, service);
    if (v6_) {
      const ip_address client = ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 1});
      return ip[0] == 0x60 && (ip[1] | ip[2] | ip[3]) == 0 && ip[6] == 6 && ip[7] == hops &&
             load16(ip + 4) + 40 == length && std::memcmp(ip + 8, client.bytes.data(), 12) == 0 &&
             std::memcmp(ip + 24, to.bytes.data(), 16) == 0;
    }
    return ip[0] == 0x45 && ip[8] == hops && ip[9] == 6 && load16(ip + 2) == length &&
           sums_up(ip) && ip[12] == 10 && std::memcmp(ip + 16, last_word(to), 4) == 0;
  }
  [[nodiscard]] const flow_frames& size_of(std::uint32_t flow,
                                           std::uint32_t number) const noexcept {
    // A flow's packets have the sizes in turn; another flow begins elsewhere.
    return sizes_.size() == 1 ? sizes_.front() : sizes_[(flow % 97 + number) % sizes_.size()];
  }
  static std::uint32_t load32(const std::uint8_t* at) noexcept {
    std::uint32_t v;
    std::memcpy(&v, at, 4);
    return byte_swap(v);
  }
  // sums_up() tells whether an IPv4 header of 20 bytes has the right checksum (RFC 791).
  static bool sums_up(const std::uint8_t* ip) noexcept {
    std::uint32_t sum = 0;
    for (unsigned i = 0; i < 20; i += 2) {
      std::uint16_t word;
      std::memcpy(&word, ip + i, 2);
      sum += word;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return ((sum & 0xffff) + (sum >> 16)) == 0xffff;
  }

  expectation expected_;
  bool v6_;
  unsigned header_;  // bytes of IP, outer and inner
  std::vector<flow_frames> sizes_;
};

}  // namespace sluice::perf
