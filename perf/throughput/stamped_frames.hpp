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
  std::uint32_t encap_source{0};                           // host order
  std::uint32_t first_backend{0};                          // host order; all are in one row
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
  stamped_frames(std::uint32_t services, const std::vector<std::uint16_t>& payloads,
                 const expectation& e)
      : expected_{e} {
    for (const std::uint16_t payload : payloads)
      sizes_.emplace_back(flow_frames::shape{.services = services, .payload = payload});
  }

  // write() writes a frame and returns its length.
  std::uint32_t write(std::uint8_t* to, std::uint32_t flow, std::uint32_t number,
                      std::uint32_t trial, std::uint64_t clock, std::uint8_t flags) const noexcept {
    const flow_frames& frames = size_of(flow, number);
    frames.write(to, flow, flags);
    std::memcpy(to + 38, &number, 4);
    std::memcpy(to + 42, &trial, 4);
    std::memcpy(to + 54, &clock, 6);
    return frames.length();
  }

  // flow_of() returns the flow that a frame claims, unchecked; 0 if it is too short.
  [[nodiscard]] std::uint32_t flow_of(const std::uint8_t* frame,
                                      std::uint32_t length) const noexcept {
    const unsigned ip = inner_at();
    if (length < ip + 40) return 0;
    return (load32(frame + ip + 12) & 0xffffff) | std::uint32_t{frame[ip + 21]} << 24;
  }

  // read() checks all that the frame must be, but its order; `s` is filled in if it is right.
  [[nodiscard]] fault read(const std::uint8_t* frame, std::uint32_t length, std::uint32_t trial,
                           stamp& s) const noexcept {
    const unsigned ip = inner_at();
    if (length < ip + 46) return fault::frame;
    if (frame[12] != 0x08 || frame[13] != 0x00) return fault::frame;
    std::memcpy(&s.trial, frame + ip + 28, 4);
    if (s.trial != trial) return s.trial >> 16 == trial >> 16 ? fault::late : fault::inner;
    if (std::memcmp(frame, expected_.next_hop.data(), 6) != 0) return fault::next_hop;
    s.flow = flow_of(frame, length);
    std::memcpy(&s.number, frame + ip + 24, 4);
    s.clock = 0;
    std::memcpy(&s.clock, frame + ip + 40, 6);
    const flow_frames& sent = size_of(s.flow, s.number);
    const std::uint32_t service = sent.service_of(s.flow);
    const bool tunnel = expected_.through == way::ipip;
    s.backend = 0;
    if (tunnel) {
      const std::uint8_t* const outer = frame + 14;
      if (outer[0] != 0x45 || outer[9] != 4 || !sums_up(outer) ||
          load32(outer + 12) != expected_.encap_source)
        return fault::outer;
      if ((std::uint32_t{outer[2]} << 8 | outer[3]) + 14 != length) return fault::outer;
      const std::uint32_t row = load32(outer + 16) - expected_.first_backend;
      if (row / expected_.backends != service) return fault::backend;
      s.backend = row + 1;
    }
    const std::uint8_t* const inner = frame + ip;
    // Ethernet's padding does not come out of a tunnel; the least payload needs none.
    if (length != sent.length() + (tunnel ? 20 : 0)) return fault::frame;
    if (inner[0] != 0x45 || inner[8] != (tunnel ? 63 : 64) || inner[9] != 6 || !sums_up(inner) ||
        (std::uint32_t{inner[2]} << 8 | inner[3]) + 14 != sent.length())
      return fault::inner;
    if (inner[12] != 10 || load32(inner + 16) != (0xc6120000u | service) || inner[20] != 0x80 ||
        inner[22] != 0 || inner[23] != service_port)
      return fault::inner;
    return fault::none;
  }

 private:
  [[nodiscard]] unsigned inner_at() const noexcept {
    return expected_.through == way::ipip ? 34 : 14;
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
  std::vector<flow_frames> sizes_;
};

}  // namespace sluice::perf
