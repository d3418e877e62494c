// SPDX-License-Identifier: Apache-2.0
// What one of eight packets can be made to differ in: every field's border values, one change each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/packet/bench.hpp"

namespace sluice::test {

constexpr std::size_t l3 = 14;
constexpr std::size_t l4_of(bool v6) {
  return l3 + (v6 ? 40u : 20u);
}

// A mutation changes a frame, or what the packet says about it.
struct mutation {
  std::string what;
  std::function<void(input&)> apply;
};

inline void set8(input& p, std::size_t at, unsigned v) {
  if (at < p.frame.size()) p.frame[at] = static_cast<std::uint8_t>(v);
}
inline void set16(input& p, std::size_t at, unsigned v) {
  set8(p, at, v >> 8);
  set8(p, at + 1, v & 0xff);
}
inline unsigned get16(const input& p, std::size_t at) {
  return at + 1 < p.frame.size() ? unsigned{p.frame[at]} << 8 | p.frame[at + 1] : 0;
}
template <std::size_t n>
inline void set(input& p, std::size_t at, const std::array<std::uint8_t, n>& v) {
  for (std::size_t i = 0; i < n; ++i) set8(p, at + i, v[i]);
}
// sum_up() makes an IPv4 header's checksum right.
inline void sum_up(input& p) {
  if (p.frame.size() < l3 + 20) return;
  set16(p, l3 + 10, 0);
  set16(p, l3 + 10, checksum_of(p.frame, l3, 20));
}

// with_and_without() is the change alone, and with the IPv4 header's checksum made right.
inline void with_and_without(std::vector<mutation>& to, const std::string& what,
                             const std::function<void(input&)>& change) {
  to.push_back({what, change});
  to.push_back({what + ", summed up", [change](input& p) {
                  change(p);
                  sum_up(p);
                }});
}

// around() are the values next to what a length field ought to be, and its borders.
inline std::vector<std::function<unsigned(unsigned, const input&)>> lengths() {
  std::vector<std::function<unsigned(unsigned, const input&)>> all;
  for (const int by : {-1, 1, -8, -20, 0x100})
    all.push_back([by](unsigned is, const input&) { return is + static_cast<unsigned>(by); });
  for (const unsigned v :
       {0u, 7u, 8u, 9u, 19u, 20u, 21u, 27u, 28u, 39u, 40u, 41u, 0x7fffu, 0x8000u, 0xff00u, 0xffffu})
    all.push_back([v](unsigned, const input&) { return v; });
  for (const std::size_t header : {l3, l3 + 20, l3 + 40})  // as long as the frame has room
    for (const int by : {-1, 0, 1})
      all.push_back([=](unsigned, const input& p) {
        return static_cast<unsigned>(p.frame.size() - header) + static_cast<unsigned>(by);
      });
  return all;
}

inline std::vector<mutation> of_ethernet() {
  std::vector<mutation> all;
  for (const unsigned v : {0x00u, 0x01u, 0x03u, 0x33u, 0xfeu, 0xffu})
    all.push_back(
        {"first byte of the MAC address " + std::to_string(v), [v](input& p) { set8(p, 0, v); }});
  for (const unsigned v :
       {0u, 0x0008u, 0x0800u, 0x0801u, 0x0806u, 0x8100u, 0x86ddu, 0xdd86u, 0x88a8u, 0xffffu})
    all.push_back({"type " + std::to_string(v), [v](input& p) { set16(p, 12, v); }});
  for (const unsigned type : {0x8100u, 0x88a8u})
    all.push_back({"tagged", [type](input& p) {
                     const std::array<std::uint8_t, 4> tag{static_cast<std::uint8_t>(type >> 8),
                                                           static_cast<std::uint8_t>(type), 0, 7};
                     p.frame.insert(p.frame.begin() + 12, tag.begin(), tag.end());
                   }});
  return all;
}

inline std::vector<mutation> of_sizes() {
  std::vector<mutation> all;
  for (const std::size_t n :
       {0u,  1u,  12u, 13u, 14u, 15u, 16u, 33u, 34u, 35u, 38u, 41u, 42u, 43u, 46u, 47u, 48u, 49u,
        53u, 54u, 55u, 58u, 59u, 60u, 61u, 62u, 63u, 64u, 66u, 67u, 68u, 73u, 74u, 75u, 80u}) {
    all.push_back({"cut to " + std::to_string(n), [n](input& p) {
                     if (n < p.frame.size()) p.frame.resize(n);
                   }});
    all.push_back(
        {"first segment of " + std::to_string(n), [n](input& p) { p.first_segment = n; }});
  }
  for (const std::size_t n : {1u, 2u, 20u}) {
    all.push_back(
        {"shorter by " + std::to_string(n), [n](input& p) { p.frame.resize(p.frame.size() - n); }});
    all.push_back({"first segment shorter by " + std::to_string(n),
                   [n](input& p) { p.first_segment = p.frame.size() - n; }});
    all.push_back({"padded by " + std::to_string(n),
                   [n](input& p) { p.frame.resize(p.frame.size() + n, 0xee); }});
    all.push_back({"padded elsewhere by " + std::to_string(n), [n](input& p) {
                     p.first_segment = p.frame.size();
                     p.frame.resize(p.frame.size() + n, 0xee);
                   }});
  }
  for (unsigned n = 0; n <= 60; ++n)
    all.push_back({"headroom " + std::to_string(n),
                   [n](input& p) { p.headroom = static_cast<std::uint16_t>(n); }});
  for (const unsigned n : {0xff00u, 0xfffeu})
    all.push_back({"headroom " + std::to_string(n),
                   [n](input& p) { p.headroom = static_cast<std::uint16_t>(n); }});
  for (const std::uint8_t port : {std::uint8_t{0}, std::uint8_t{2}, std::uint8_t{255}})
    all.push_back({"in-port", [port](input& p) { p.in_port = port; }});
  return all;
}

inline std::vector<mutation> of_l4(bool v6, bool tcp) {
  std::vector<mutation> all;
  const std::size_t l4 = l4_of(v6);
  for (const unsigned v : {0u, 1u, 53u, 80u, 443u, 0xbb01u, 0xffffu})
    for (const std::size_t at : {l4, l4 + 2})
      all.push_back({"port " + std::to_string(v), [=](input& p) { set16(p, at, v); }});
  if (tcp) {
    for (unsigned v = 0; v < 16; ++v)
      for (const unsigned low : {0u, 15u})
        all.push_back({"data offset " + std::to_string(v),
                       [=](input& p) { set8(p, l4 + 12, v << 4 | low); }});
    for (unsigned v = 0; v < 256; v += v < 64 ? 1 : 9)
      all.push_back({"flags " + std::to_string(v), [=](input& p) { set8(p, l4 + 13, v); }});
  } else {
    for (const auto& length : lengths())
      all.push_back(
          {"UDP length", [=](input& p) { set16(p, l4 + 4, length(get16(p, l4 + 4), p)); }});
    for (const unsigned v : {0u, 0xffffu})
      all.push_back({"UDP checksum", [=](input& p) { set16(p, l4 + 6, v); }});
  }
  return all;
}

inline std::vector<mutation> of_ipv4() {
  std::vector<mutation> all;
  for (const unsigned v : {0x44u, 0x46u, 0x4fu, 0x55u, 0x65u, 0x60u, 0x05u, 0x00u, 0xffu})
    with_and_without(all, "version, IHL " + std::to_string(v), [v](input& p) { set8(p, l3, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 0xfcu, 0xffu})
    with_and_without(all, "TOS " + std::to_string(v), [v](input& p) { set8(p, l3 + 1, v); });
  for (const auto& length : lengths())
    with_and_without(all, "total length",
                     [=](input& p) { set16(p, l3 + 2, length(get16(p, l3 + 2), p)); });
  for (const unsigned v :
       {0u, 1u, 0x2000u, 0x2001u, 0x1fffu, 0x4000u, 0x4001u, 0x6000u, 0x8000u, 0xc000u, 0xffffu})
    with_and_without(all, "fragment " + std::to_string(v), [v](input& p) { set16(p, l3 + 6, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 127u, 128u, 254u, 255u})
    with_and_without(all, "TTL " + std::to_string(v), [v](input& p) { set8(p, l3 + 8, v); });
  for (const unsigned v : {0u, 1u, 4u, 5u, 6u, 7u, 16u, 17u, 18u, 23u, 41u, 47u, 58u, 132u, 255u})
    with_and_without(all, "protocol " + std::to_string(v), [v](input& p) { set8(p, l3 + 9, v); });
  for (const int by : {-256, -1, 1, 256, 0x8000})
    all.push_back({"checksum off", [by](input& p) {
                     set16(p, l3 + 10, get16(p, l3 + 10) + static_cast<unsigned>(by));
                   }});
  for (const unsigned v : {0u, 0xffffu})
    all.push_back({"checksum " + std::to_string(v), [v](input& p) { set16(p, l3 + 10, v); }});
  // Right ones of all kinds: the id makes them so. The last changes by what the TTL loses.
  for (const unsigned v : {0u, 1u, 0xfeu, 0xffu, 0x100u, 0x7fffu, 0xfdffu, 0xfe00u, 0xfeffu,
                           0xff00u, 0xfffeu, 0xffffu})
    all.push_back({"right checksum " + std::to_string(v), [v](input& p) {
                     set16(p, l3 + 4, 0);
                     set16(p, l3 + 10, v);
                     set16(p, l3 + 4, checksum_of(p.frame, l3, 20));
                   }});
  for (const std::size_t at : {l3 + 12, l3 + 16}) {
    for (const unsigned v :
         {0u, 1u, 2u, 126u, 127u, 128u, 222u, 223u, 224u, 225u, 239u, 240u, 254u, 255u})
      with_and_without(all, "first octet " + std::to_string(v), [=](input& p) { set8(p, at, v); });
    for (const quad& a : {quad{0, 0, 0, 0}, quad{255, 255, 255, 255}, quad{127, 0, 0, 1},
                          quad{198, 51, 100, 10}, quad{10, 0, 0, 1}})
      with_and_without(all, "address", [=](input& p) { set(p, at, a); });
  }
  with_and_without(all, "to itself", [](input& p) {
    for (std::size_t i = 0; i < 4; ++i) set8(p, l3 + 12 + i, p.frame[l3 + 16 + i]);
  });
  return all;
}

inline std::vector<mutation> of_ipv6() {
  std::vector<mutation> all;
  const auto add = [&all](const std::string& what, const std::function<void(input&)>& change) {
    all.push_back({what, change});
  };
  for (const unsigned v : {0x00u, 0x40u, 0x45u, 0x50u, 0x60u, 0x61u, 0x6fu, 0x70u, 0xe0u, 0xffu})
    add("first byte " + std::to_string(v), [v](input& p) { set8(p, l3, v); });
  for (const unsigned v : {0u, 0x0fu, 0x10u, 0xf0u, 0xffu})
    add("second byte " + std::to_string(v), [v](input& p) { set8(p, l3 + 1, v); });
  for (const auto& length : lengths())
    add("payload length", [=](input& p) { set16(p, l3 + 4, length(get16(p, l3 + 4), p)); });
  for (const unsigned v :
       {0u, 1u, 5u, 6u, 7u, 16u, 17u, 18u, 43u, 44u, 50u, 51u, 58u, 59u, 60u, 135u, 255u})
    add("next header " + std::to_string(v), [v](input& p) { set8(p, l3 + 6, v); });
  for (const unsigned v : {0u, 1u, 2u, 3u, 127u, 128u, 254u, 255u})
    add("hop limit " + std::to_string(v), [v](input& p) { set8(p, l3 + 7, v); });
  const auto address = [](std::initializer_list<std::uint8_t> first, std::uint8_t middle,
                          std::uint8_t last) {
    hexadec a{};
    std::copy(first.begin(), first.end(), a.begin());
    a[7] = middle;
    a[15] = last;
    return a;
  };
  hexadec mapped{};
  mapped[10] = mapped[11] = 0xff;
  mapped[12] = 10;
  for (const std::size_t at : {l3 + 8, l3 + 24}) {
    for (const hexadec& a :
         {address({}, 0, 0), address({}, 0, 1), address({}, 1, 0), address({}, 0x80, 1), mapped,
          address({0xff, 2}, 0, 1), address({0xff}, 0, 0), address({0xfe, 0x80}, 0, 1),
          address({0xfe}, 0xff, 0xff), address({0, 0xff}, 0, 1), address({1}, 0, 1),
          address({0x20, 1, 0xd, 0xb8, 0, 0xf}, 0, 9)})
      add("address", [=](input& p) { set(p, at, a); });
    for (const unsigned v : {0u, 0x7fu, 0xfeu, 0xffu})
      add("first octet " + std::to_string(v), [=](input& p) { set8(p, at, v); });
    add("upper half 0", [=](input& p) { set(p, at, std::array<std::uint8_t, 8>{}); });
    add("lower half 0", [=](input& p) { set(p, at + 8, std::array<std::uint8_t, 8>{}); });
    for (std::size_t i = 0; i < 16; ++i)
      add("an address nearly the other", [=](input& p) {
        for (std::size_t j = 0; j < 16; ++j) set8(p, l3 + 8 + j, p.frame[l3 + 24 + j]);
        set8(p, at + i, p.frame[at + i] ^ 1u);
      });
  }
  add("to itself", [](input& p) {
    for (std::size_t i = 0; i < 16; ++i) set8(p, l3 + 8 + i, p.frame[l3 + 24 + i]);
  });
  return all;
}

}  // namespace sluice::test
