// SPDX-License-Identifier: Apache-2.0
// Frames of numbered flows: minimum-size TCP (or UDP) packets to one of many services, written
// from a template at a few nanoseconds each. No DPDK: the benchmarks, the instruction counter
// and the source of perf/throughput write the same ones.
//
// Flow n comes from a client address and port of its own, and is for service
// service_of(n), on port 80 of vip(service).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/net_types.hpp"
#include "dataplane/packet/headers.hpp"

namespace sluice::perf {

inline constexpr std::uint8_t flag_syn = 0x02;
inline constexpr std::uint8_t flag_ack = 0x10;
inline constexpr std::uint16_t service_port = 80;

// 198.18.0.0/15 and 2001:db8:f::/112; at most 65536 services.
inline ip_address vip(bool v6, std::uint32_t service) noexcept {
  const auto high = static_cast<std::uint8_t>(service >> 8);
  const auto low = static_cast<std::uint8_t>(service);
  return v6 ? ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, high, low})
            : ip_address::v4({198, 18, high, low});
}

class flow_frames {
 public:
  static constexpr std::size_t room = 128;  // bytes that write() may touch

  struct shape {
    bool v6{false};
    bool udp{false};
    bool vlan{false};
    std::uint32_t services{100};
    std::uint16_t payload{0};  // bytes behind the transport header, which write() leaves alone
  };

  explicit flow_frames(const shape& s) noexcept : shape_{s}, l3_{s.vlan ? 18u : 14u} {
    std::uint8_t* b = template_.data();
    b[0] = 2;
    b[6] = 2, b[11] = 1;
    if (s.vlan) b[12] = 0x81, b[15] = 100;
    std::uint8_t* const type = b + l3_ - 2;
    std::uint8_t* const ip = b + l3_;
    const std::uint8_t protocol = s.udp ? 17 : 6;
    const auto l4_length = static_cast<std::uint16_t>(20 + s.payload);  // of UDP: 12 bytes more
    const auto put = [](std::uint8_t* to, unsigned value) {
      to[0] = static_cast<std::uint8_t>(value >> 8), to[1] = static_cast<std::uint8_t>(value);
    };
    if (s.v6) {
      type[0] = 0x86, type[1] = 0xdd;
      ip[0] = 0x60, ip[6] = protocol, ip[7] = 64;
      put(ip + 4, l4_length);
      const ip_address client = ip_address::v6({0x20, 1, 0xd, 0xb8, 0, 1});
      std::memcpy(ip + 8, client.bytes.data(), 16);
      std::memcpy(ip + 24, vip(true, 0).bytes.data(), 16);
      l4_ = l3_ + 40;
      length_ = l4_ + l4_length;
    } else {
      type[0] = 0x08;
      ip[0] = 0x45, ip[8] = 64, ip[9] = protocol;
      put(ip + 2, 20u + l4_length);
      for (unsigned i = 0; i < 12; i += 2) {
        std::uint16_t word;
        std::memcpy(&word, ip + i, 2);
        sum_ += word;
      }
      l4_ = l3_ + 20;
      length_ = l3_ + (s.payload < 6 ? 46u : 40u + s.payload);  // Ethernet pads
    }
    std::uint8_t* const l4 = b + l4_;
    l4[3] = service_port;
    if (s.udp) {
      put(l4 + 4, l4_length);
    } else {
      l4[12] = 0x50, l4[13] = flag_ack;
    }
  }

  [[nodiscard]] std::uint32_t length() const noexcept { return length_; }

  [[nodiscard]] std::uint32_t service_of(std::uint32_t flow) const noexcept {
    return static_cast<std::uint32_t>(
        std::uint64_t{static_cast<std::uint32_t>(flow * 0x9e3779b1u)} * shape_.services >> 32);
  }

  // write() writes a packet of a flow, below 2^29; `flags` of TCP.
  void write(void* frame, std::uint32_t flow, std::uint8_t flags = flag_ack) const noexcept {
    auto* const to = static_cast<std::uint8_t*>(frame);
    std::memcpy(to, template_.data(), 64);
    const std::uint32_t service = service_of(flow);
    const auto port = static_cast<std::uint16_t>((flow >> 16 & 0x1f00) | 0x80);  // as in memory
    if (shape_.v6) {
      std::memcpy(to + 64, template_.data() + 64, 32);
      std::memcpy(to + l3_ + 20, &flow, 4);
      const std::uint16_t last = byte_swap(static_cast<std::uint16_t>(service));
      std::memcpy(to + l3_ + 38, &last, 2);
    } else {
      // 10.a.b.c, 198.18.x.y.
      const std::uint32_t source = byte_swap(0x0a000000u | (flow & 0xffffff));
      const std::uint32_t destination = byte_swap(0xc6120000u | service);
      std::memcpy(to + l3_ + 12, &source, 4);
      std::memcpy(to + l3_ + 16, &destination, 4);
      std::uint64_t sum = std::uint64_t{sum_} + source + destination;
      sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
      sum = (sum & 0xffff) + (sum >> 16);
      sum = (sum & 0xffff) + (sum >> 16);
      const auto checksum = static_cast<std::uint16_t>(~sum);
      std::memcpy(to + l3_ + 10, &checksum, 2);
    }
    std::memcpy(to + l4_, &port, 2);
    if (!shape_.udp) to[l4_ + 13] = flags;
  }

 private:
  alignas(64) std::array<std::uint8_t, room> template_{};
  shape shape_;
  std::uint32_t l3_;
  std::uint32_t l4_{0};
  std::uint32_t length_{0};
  std::uint32_t sum_{0};
};

// flow_picker draws flow numbers: at random, the same in every run.
class flow_picker {
 public:
  explicit flow_picker(std::uint32_t flows, std::uint64_t seed = 1) noexcept
      : flows_{flows}, state_{seed} {}
  std::uint32_t next() noexcept {
    state_ = state_ * 0x5851f42d4c957f2d + 0x14057b7ef767814f;  // PCG's multiplier
    return static_cast<std::uint32_t>((state_ >> 32) * flows_ >> 32);
  }

 private:
  std::uint64_t flows_;
  std::uint64_t state_;
};

}  // namespace sluice::perf
